/*
 * Which architecture a file has. What is not built is refused by the name that people know, with
 * the list of what is; a file that belongs to a model (an encoder, a drafter, an adapter) is told
 * from a model, as it is easily taken for one.
 */
#include "base/mem.h"
#include "model/arch.h"

#include <string.h>

/* Architectures that are not built; families as their makers call them. */
static const struct {
    const char *arch, *family;
} families[] = {
    {"afmoe", "Trinity (AFMoE)"},
    {"apertus", "Apertus"},
    {"arcee", "Arcee"},
    {"baichuan", "Baichuan"},
    {"bailingmoe", "Ling"},
    {"bailingmoe2", "Ling 2"},
    {"bert", "BERT"},
    {"bloom", "BLOOM"},
    {"chatglm", "ChatGLM"},
    {"cohere2", "Command R7B and Command A"},
    {"cohere2moe", "Command MoE"},
    {"command-r", "Command R"},
    {"dbrx", "DBRX"},
    {"deepseek", "DeepSeek 1"},
    {"deepseek2", "DeepSeek V2, V3 and R1, Kimi K2 and GLM-4.7-Flash"},
    {"deepseek32", "DeepSeek V3.2"},
    {"deepseek4", "DeepSeek V4"},
    {"ernie4_5", "ERNIE 4.5"},
    {"ernie4_5-moe", "ERNIE 4.5 MoE"},
    {"eurobert", "EuroBERT"},
    {"exaone", "EXAONE 3"},
    {"exaone4", "EXAONE 4"},
    {"falcon", "Falcon"},
    {"falcon-h1", "Falcon-H1"},
    {"gemma", "Gemma 1"},
    {"gemma-embedding", "EmbeddingGemma"},
    {"gemma-embedding2", "EmbeddingGemma 2"},
    {"gemma2", "Gemma 2"},
    {"gemma3n", "Gemma 3n"},
    {"glm-dsa", "GLM-5"},
    {"glm4", "GLM-4"},
    {"glm4moe", "GLM-4.5 to 4.7"},
    {"glm5-next", "GLM-5.3-Flash"},
    {"gpt2", "GPT-2"},
    {"gptneox", "GPT-NeoX and Pythia"},
    {"granite", "Granite"},
    {"granite_swa", "Granite with windows"},
    {"granitehybrid", "Granite 4 hybrid"},
    {"granitemoe", "Granite MoE"},
    {"grok", "Grok"},
    {"hunyuan-dense", "Hunyuan"},
    {"hunyuan-moe", "Hunyuan MoE"},
    {"hy_v3", "Hunyuan 3"},
    {"hy_v4", "Hunyuan 4"},
    {"internlm2", "InternLM 2"},
    {"jamba", "Jamba"},
    {"jina-bert-v2", "Jina BERT v2"},
    {"jina-bert-v3", "Jina BERT v3"},
    {"kimi-linear", "Kimi Linear"},
    {"laguna", "Laguna"},
    {"lfm2moe", "LFM2 MoE"},
    {"llama-embed", "Llama embedding"},
    {"llama4", "Llama 4"},
    {"mamba", "Mamba"},
    {"mamba2", "Mamba 2"},
    {"mimo2", "MiMo 2"},
    {"minicpm", "MiniCPM"},
    {"minicpm3", "MiniCPM 3"},
    {"minimax-m2", "MiniMax M2"},
    {"minimax-m3", "MiniMax M3"},
    {"mistral3", "Ministral 3 and Devstral 2"},
    {"mistral4", "Mistral 4"},
    {"modern-bert", "ModernBERT"},
    {"mpt", "MPT"},
    {"muse-glimmer", "Muse Glimmer"},
    {"nemotron", "Nemotron"},
    {"nemotron_h", "Nemotron-H"},
    {"nemotron_h_moe", "Nemotron 3"},
    {"nomic-bert", "Nomic Embed"},
    {"nomic-bert-moe", "Nomic Embed MoE"},
    {"olmo", "OLMo 1"},
    {"olmo2", "OLMo 2 and 3"},
    {"olmoe", "OLMoE"},
    {"phi2", "Phi-2"},
    {"phi3", "Phi-3 and Phi-4"},
    {"phimoe", "Phi MoE"},
    {"plamo2", "PLaMo 2"},
    {"qwen", "Qwen 1"},
    {"qwen2vl", "Qwen2-VL and Qwen2.5-VL"},
    {"qwen3next", "Qwen3-Next"},
    {"qwen3vl", "Qwen3-VL"},
    {"qwen3vlmoe", "Qwen3-VL MoE"},
    {"qwen4exp", "Qwen3.8-Flash-Next"},
    {"rwkv6", "RWKV 6"},
    {"rwkv7", "RWKV 7"},
    {"seed_oss", "Seed-OSS"},
    {"smollm3", "SmolLM3"},
    {"stablelm", "StableLM"},
    {"starcoder", "StarCoder"},
    {"starcoder2", "StarCoder 2"},
    {"step35", "Step 3.5"},
    {"t5", "T5"},
    {"t5encoder", "T5 encoder"},
};

/* What lies beside a model and is none: the value of general.architecture or general.type. */
static const struct {
    const char *key, *value, *what;
} parts[] = {
    {"general.architecture", "clip", "an encoder of images or sound (mmproj)"},
    {"general.architecture", "dflash", "a drafter (DFlash)"},
    {"general.architecture", "dflash-draft", "a drafter (DFlash)"},
    {"general.architecture", "eagle3", "a drafter (EAGLE-3)"},
    {"general.architecture", "gemma4-assistant", "a drafter (Gemma 4's MTP)"},
    {"general.type", "mmproj", "an encoder of images or sound (mmproj)"},
    {"general.type", "adapter", "an adapter (LoRA)"},
    {"general.type", "imatrix", "an importance matrix"},
};

static bool is(cp_str s, const char *text)
{
    return strlen(text) == s.n && memcmp(text, s.p, s.n) == 0;
}

static cp_code refuse_part(const cp_meta *meta, cp_err *err)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        cp_str v;
        if (cp_meta_str(meta, parts[i].key, &v) && is(v, parts[i].value)) {
            return cp_fail(err, CP_UNSUPPORTED,
                           "'%s' is '%s': the file is %s, which lies beside a model, not a model; "
                           "give the model's own file",
                           parts[i].key, parts[i].value, parts[i].what);
        }
    }
    return CP_OK;
}

cp_code cp_arch_find(const cp_arch **out, const cp_meta *meta, cp_err *err)
{
    cp_str name;
    if (!cp_meta_str(meta, "general.architecture", &name)) {
        return cp_fail(err, CP_CORRUPT, "key 'general.architecture' is missing");
    }
    cp_code rc = refuse_part(meta, err);
    if (rc) {
        return rc;
    }
    char list[256] = "";
    size_t n = 0;
    for (const cp_arch *const *a = cp_archs; *a; a++) {
        if (is(name, (*a)->name)) {
            *out = *a;
            return CP_OK;
        }
        n += cp_snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", (*a)->name);
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (is(name, families[i].arch)) {
            return cp_fail(err, CP_UNSUPPORTED,
                           "%s models (architecture '%s') are not built; supported: %s",
                           families[i].family, families[i].arch, list);
        }
    }
    return cp_fail(err, CP_UNSUPPORTED, "architecture '%.*s' is not supported; supported: %s",
                   (int)(name.n < 64 ? name.n : 64), name.p, list);
}

const char *cp_arch_unbuilt(int i)
{
    return i < (int)(sizeof families / sizeof *families) ? families[i].arch : NULL;
}
