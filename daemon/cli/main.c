/*
 * main.c - moecal: the table of commands
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/alloc.h"

#define SPEC_OPTIONS                                                                               \
	"  SPEC                 a job spec, JSON or YAML; '-' reads it from standard input\n"      \
	"  --model PATH         the checkpoint folder\n"                                           \
	"  --dataset PATH       calibration data (.jsonl, .txt, .npy, .safetensors); may be "      \
	"repeated\n"                                                                               \
	"  --recipe R           a preset name (W4A16, FP8 ...), a recipe file, or YAML text\n"     \
	"  --KEY VALUE          any other key of the spec, e.g. --max-seq-length 512\n"

#define SERVICE_OPTIONS                                                                            \
	"  --url URL            the service: http://HOST:PORT, https://HOST or unix:PATH; else "   \
	"MOECAL_URL,\n"                                                                            \
	"                       else http://127.0.0.1:8460. The token is that of MOECAL_TOKEN or " \
	"of the\n"                                                                                 \
	"                       file MOECAL_TOKEN_FILE\n"                                          \
	"  --timeout SECONDS    how long the service may say nothing (default 60; 900 while it "   \
	"reads data)\n"                                                                            \
	"  --json               answers as JSON\n"

static const struct command commands[] = {
    {"run", "SPEC|- -o DIR", "calibrate and quantize a checkpoint",
	SPEC_OPTIONS
	"  -o, --output DIR     where the results go; resumes when DIR holds a resume/\n"
	"  --json               events as JSON lines on standard output\n\n"
	"Examples:\n"
	"  moecal run --model Qwen3-30B-A3B --dataset text.jsonl --recipe W4A16 -o out\n"
	"  moecal run job.yaml -o out --threads 8\n"
	"  moecal run --model M --recipe recipe.yaml --calibrate-all-experts false --dataset d.npy "
	"-o out\n",
	command_run},
    {"plan", "SPEC|-", "what a job would cost: memory, disk, time",
	SPEC_OPTIONS "  --json\n\nExamples:\n"
		     "  moecal plan --model Qwen3-30B-A3B --dataset text.jsonl --recipe FP8\n",
	command_plan},
    {"derive", "DIR [SPEC|-] -o DIR", "another recipe from a finished job, without its data",
	"  DIR                  the folder of a finished job (moecal run, moecal fetch)\n"
	"  --recipe R           a preset name (W4A16, FP8 ...), a recipe file, or YAML text\n"
	"  SPEC                 recipe, threads, memory_bytes and metadata as JSON or YAML; all "
	"else is\n"
	"                       the source job's\n"
	"  -o, --output DIR     where the results go; resumes when DIR holds a resume/\n"
	"  --threads N, --memory-bytes N, --metadata JSON\n"
	"  --plan               only say what it would cost\n"
	"  --json               events as JSON lines on standard output\n\n"
	"Examples:\n"
	"  moecal derive out --recipe FP8 -o out-fp8\n",
	command_derive},
    {"inspect", "MODEL|DATASET", "what is in a checkpoint, or in a file of data",
	"  --json\n  --modules            list every module of a checkpoint\n"
	"  --digest             read it all: sha256 of the checkpoint, its files\n"
	"  --text-column NAME   of a JSONL file (default text)\n\nExamples:\n"
	"  moecal inspect Qwen3-30B-A3B\n  moecal inspect text.jsonl\n",
	command_inspect},
    {"verify", "DIR", "check the quantized checkpoint of a job folder, or any",
	"  --original MODEL     compare with the checkpoint it was made from\n  "
	"--json\n\nExamples:\n"
	"  moecal verify out\n  moecal verify out/model --original Qwen3-30B-A3B\n",
	command_verify},
    {"coverage", "DIR", "which experts the text of a job reached",
	"  --all                every layer, not only the poorest\n  --json\n\nExamples:\n"
	"  moecal coverage out\n",
	command_coverage},
    {"diff", "A B", "how far the calibrations of two job folders are apart",
	"  --threshold X        exit code 1 when a difference is larger than X, or something is in one "
	"only\n"
	"  --limit N            at most N rows a table (default 8; 0: all); JSON has all\n  --json\n\n"
	"Differences are relative: 0 for equal ones, 1 for a number against 0. That of coverage is the "
	"part of a\n"
	"layer's routed tokens that goes to another expert.\n\nExamples:\n"
	"  moecal diff out-monday out-tuesday\n  moecal diff out again --threshold 0\n",
	command_diff},
    {"quantization", "DIR [NAME]", "the parameters of a job; NAME selects by prefix",
	"  --limit N            at most N parameters (default 20; 0: all)\n  --json\n\nExamples:\n"
	"  moecal quantization out model.layers.0.mlp.experts.3\n",
	command_quantization},
    {"evaluate", "MODEL DATASET", "perplexity of a checkpoint on a dataset",
	"  --num-samples N      only the first N sequences\n  --max-seq-length N   cut sequences "
	"(default 2048)\n"
	"  --threads N\n  --json\n\nExamples:\n  moecal evaluate Qwen3-30B-A3B "
	"prose.evaluation.npy --num-samples 60\n",
	command_evaluate},
    {"tokenize", "MODEL [FILE]", "token ids, one line a line of input",
	"  --add-special-tokens auto|true|false\n  --no-match-special   special tokens in the text "
	"are ordinary text\n"
	"  --json               lines are JSON strings, answers JSON arrays\n\nExamples:\n"
	"  echo 'Hello' | moecal tokenize Qwen3-30B-A3B\n",
	command_tokenize},
    {"submit", "SPEC|-", "give a job to the service",
	"  SPEC                 a job spec, JSON or YAML; '-' reads it from standard input\n"
	"  --model NAME         a model of the service, or a path beneath its allowed folders\n"
	"  --dataset NAME       a dataset of the service, or such a path; may be repeated\n"
	"  --recipe R           a preset name (W4A16, FP8 ...), a recipe file, or YAML text\n"
	"  --KEY VALUE          any other key of the spec, e.g. --max-seq-length 512\n"
	"  --upload FILE        data on this machine: sent first, then a dataset of the job; "
	"may be repeated\n"
	"  --text-column NAME   of an uploaded JSONL file (default text)\n"
	"  --wait               follow the job to its end; the exit code tells how it ended\n"
	"  --key KEY            idempotency key: however often the command is repeated with it, "
	"there is one job\n"
	"  --priority N         higher ones start first (default 0)\n"
	"  --deadline-seconds N the job fails when it is not done so long after its start\n"
	"  --keep-seconds N     how long the finished job is kept\n"
	"  --retry-for SECONDS  with --wait: how long the service may be away (default 600)\n"
	SERVICE_OPTIONS "\nExamples:\n"
	"  moecal submit --model tiny --upload text.jsonl --recipe W4A16 --wait\n"
	"  moecal submit job.yaml --key nightly-17 --wait\n",
	command_submit},
    {"list", "", "jobs of the service, newest first",
	"  --state S            only these: queued, running, canceling, succeeded, failed, "
	"canceled; a,b\n"
	"  --model NAME         only jobs of this model\n"
	"  --limit N            at most N (default 50; 0: all)\n" SERVICE_OPTIONS
	"\nExamples:\n  moecal list --state queued,running\n",
	command_list},
    {"get", "JOB", "how a job of the service stands",
	SERVICE_OPTIONS "\nExamples:\n  moecal get job_01jx...\n", command_get},
    {"watch", "JOB", "follow a job of the service to its end",
	"  --retry-for SECONDS  how long the service may be away (default 600)\n" SERVICE_OPTIONS
	"\nExamples:\n  moecal watch job_01jx...\n",
	command_watch},
    {"cancel", "JOB", "end a job of the service",
	SERVICE_OPTIONS "\nExamples:\n  moecal cancel job_01jx...\n", command_cancel},
    {"rm", "JOB", "delete a finished job and its files",
	SERVICE_OPTIONS "\nExamples:\n  moecal rm job_01jx...\n", command_rm},
    {"fetch", "JOB [-o DIR]", "the files of a finished job, each checked by its digest",
	"  -o, --output DIR     where they go (default: a folder named as the job)\n"
	"  --prefix PATH        only files whose names begin so, e.g. model/\n" SERVICE_OPTIONS
	"\nExamples:\n  moecal fetch job_01jx... -o out\n"
	"  moecal fetch job_01jx... -o out --prefix model/\n",
	command_fetch},
    {"models", "[ACTION ...]", "models that the service knows",
	"  list                 all of them (what is done without a word)\n"
	"  add PATH             register a checkpoint beneath an allowed folder of the service\n"
	"  get ID, rm ID\n"
	"  --id NAME            of the one that is added\n"
	"  --limit N            of a list (default 50; 0: all)\n" SERVICE_OPTIONS
	"\nExamples:\n  moecal models add Qwen3-30B-A3B --id qwen3-30b\n",
	command_models},
    {"datasets", "[ACTION ...]", "data that the service knows",
	"  list                 all of them (what is done without a word)\n"
	"  add PATH             register data beneath an allowed folder of the service\n"
	"  upload FILE          send data of this machine\n"
	"  get ID, rm ID\n"
	"  --id NAME            of the one that is added\n"
	"  --text-column NAME   of a JSONL file (default text)\n"
	"  --limit N            of a list (default 50; 0: all)\n" SERVICE_OPTIONS
	"\nExamples:\n  moecal datasets upload text.jsonl --id prose\n",
	command_datasets},
    {"version", "", "versions of the program and its libraries, with --url also of the service",
	SERVICE_OPTIONS, command_version},
};
#define COMMANDS (sizeof commands / sizeof *commands)

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

void command_help(const struct command *command)
{
	printf("%s: %s\n\nusage: moecal %s %s\n\n%s", command->name, command->summary,
	    command->name, command->arguments, command->help);
}

int usage_error(const char *command, const char *fmt, ...)
{
	va_list args;
	char text[512];

	va_start(args, fmt);
	int length = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	/* an argument may be of any length: what else there is to say stays in sight */
	fprintf(stderr, "moecal: %s%s\n", text, length >= (int)sizeof text ? "..." : "");
	fprintf(stderr, "try: moecal %s%s--help\n", command, command[0] != '\0' ? " " : "");
	return EXIT_USAGE;
}

static void help(void)
{
	printf("moecal calibrates and quantizes Mixture-of-Experts checkpoints so that every "
	       "expert ends with\n"
	       "valid, explained parameters.\n\n"
	       "  moecal run --model M --dataset text.jsonl --recipe W4A16 -o out\n"
	       "  moecal coverage out\n\n"
	       "commands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %-13s %-18s %s\n", commands[i].name, commands[i].arguments,
		    commands[i].summary);
	printf("\nmoecal COMMAND --help explains one. Exit codes: 0 done, 1 the job failed, 2 "
	       "usage or invalid spec,\n"
	       "3 service unreachable, 4 verdict failed, 75 stopped by SIGTERM with the work "
	       "saved, 130 interrupted.\n");
}

static int unknown_command(const char *word)
{
	const char *names[COMMANDS];

	for (size_t i = 0; i < COMMANDS; i++)
		names[i] = commands[i].name;
	const char *near = mc_nearest(word, names, COMMANDS);
	return near != NULL
		   ? usage_error("", "there is no command '%s'; did you mean '%s'?", word, near)
		   : usage_error("", "there is no command '%s'", word);
}

static int run(int argc, char **argv)
{
	if (argc < 2) {
		help();
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		const struct command *about = argc > 2 ? command_find(argv[2]) : NULL;
		if (argc > 2 && about == NULL)
			return unknown_command(argv[2]);
		if (about != NULL)
			command_help(about);
		else
			help();
		return EXIT_DONE;
	}
	if (strcmp(argv[1], "--version") == 0)
		return command_version(1, argv);
	const struct command *command = command_find(argv[1]);
	if (command == NULL)
		return unknown_command(argv[1]);
	for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			command_help(command);
			return EXIT_DONE;
		}
	return command->run(argc - 1, argv + 1);
}

/* A file that is opened must not become standard output: what is printed would be written into it.
 * Opened so that printing fails. */
static void fill_standard_files(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", O_RDONLY);
}

int main(int argc, char **argv)
{
	fill_standard_files();
	signal(SIGPIPE, SIG_IGN);
	int code = run(argc, argv);

	/* data that did not arrive is no success */
	if (output_is_written() || code != EXIT_DONE)
		return code;
	fprintf(stderr, "moecal: standard output cannot be written\n");
	return EXIT_JOB_FAILED;
}
