/* main.c - the program: picks the command. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"pull", cmd_pull, "download a model or adapter into Hugging Face's cache"},
    {"import", cmd_import, "make a Hugging Face model folder of a GGUF file"},
    {"train", cmd_train, "train an adapter: LoRI-D, LoRI-S or LoRA"},
    {"mask", cmd_mask, "extract the keep mask of a LoRI-D adapter"},
    {"merge", cmd_merge, "merge adapters, or adapters into their base"},
    {"chat", cmd_chat, "talk with a model in the terminal"},
    {"generate", cmd_generate, "generate text"},
    {"score", cmd_score, "log-probabilities, loss and exact match"},
    {"tokenize", cmd_tokenize, "ids of texts"},
    {"detokenize", cmd_detokenize, "text of ids"},
    {"eval", cmd_eval, "evaluate models on tasks"},
    {"run", cmd_run, "run a recipe: train, mask, merge, evaluate"},
    {"inspect", cmd_inspect, "sizes and facts of a base, adapter or mask"},
    {"env", cmd_env, "version, processor and libraries in use"},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void print_help(FILE *to)
{
    fprintf(to,
            "lori %s - LoRI and LoRA adapters for language models\n\n"
            "usage: lori COMMAND [options]\n\n",
            lori_version());
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].about);
    fputs("\n`lori COMMAND --help` tells more.\n", to);
}

int main(int argc, char **argv)
{
    const char *names[N_COMMANDS];
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("lori %s\n", lori_version());
        return EXIT_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(argv[1], names[i]) != 0)
            continue;
        cli_signals();
        return commands[i].run(argc - 1, argv + 1);
    }
    const char *near = lori_nearest(argv[1], names, N_COMMANDS);
    fprintf(stderr, "lori: unknown command '%s'", argv[1]);
    if (near)
        fprintf(stderr, "; did you mean '%s'?", near);
    fputs("\n`lori --help` lists the commands.\n", stderr);
    return EXIT_USAGE;
}
