/* Where libfiber_kernels has its variables: the shared memory of all kernels, and no others. */
/* hidden: this library's own, not the program's */
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];
extern "C" void fibers_shared(char **first, char **end)
{
    *first = __bss_start;
    *end = _end;
}
