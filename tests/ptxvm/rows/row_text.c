/* A module with one instruction of each row, for NVIDIA's assembler to read (assemble.py). */
#include "tests/ptxvm/rows/rowtest.h"

#include <stdio.h>

static const char *register_of(char kind)
{
    return kind == 'p' ? "%p" : kind == 'w' ? "%r" : kind == 'l' ? "%rd" : "%rs";
}

static const char *space_of(const ptx_row *row, int k)
{
    if (strncmp(row->text, "cp.async.c", 10) == 0)
        return k == 0 ? "sh" : "%rd39";
    return strstr(row->text, ".shared")  ? "sh"
           : strstr(row->text, ".local") ? "lo"
           : strstr(row->text, ".param") ? "param"
                                         : "%rd39";
}

static void print_operand(const ptx_row *row, const rowtest_operand *o, int k, int *next)
{
    const bool braces =
        o->count > 1 || strncmp(row->text, "mma", 3) == 0 || strncmp(row->text, "ldmatrix", 8) == 0;
    printf("%s", k == 0 ? " " : o->after_bar ? "|" : ", ");
    if (o->kind == 'm') {
        printf("[%s]", space_of(row, k));
    } else if (o->kind == 't') {
        printf("L");
    } else if (o->kind == '0') {
        printf("0");
    } else if (o->kind == '#') {
        printf("%d", strncmp(row->text, "cp.async.c", 10) == 0 ? 16 : 1);
    } else {
        for (int c = 0; c < o->count; c++)
            printf("%s%s%d", c ? ", " : braces ? "{" : "", register_of(o->kind), (*next)++);
        printf("%s", braces ? "}" : "");
    }
}

void rowtest_print(void)
{
    printf(".version 9.0\n.target sm_90\n.address_size 64\n"
           ".visible .entry k(.param .align 16 .b8 param[64])\n{\n"
           ".reg .pred %%p<40>; .reg .b16 %%rs<40>; .reg .b32 %%r<40>; .reg .b64 %%rd<40>;\n"
           ".shared .align 16 .b8 sh[1024]; .local .align 16 .b8 lo[64];\n");
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        const ptx_row *row = rowtest_row(n);
        rowtest_operand o[8];
        int next = 1;
        const int n_operands = rowtest_shape(row->shape, o);
        printf("%s%s", row->flow == PTX_PLAIN || row->flow == PTX_BARRIER ? "" : "@%p39 ",
               row->text);
        for (int k = 0; k < n_operands; k++) {
            if (!o[k].optional || o[k].after_bar)
                print_operand(row, &o[k], k, &next);
        }
        printf(";\n");
    }
    printf("L:\nret;\n}\n");
}
