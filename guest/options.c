#define _GNU_SOURCE
#include "options.h"

#include "fatal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { IDS = 65536, MIB_MAX = 1 << 24 };

static uint64_t number(const char *name, const char *text, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value > most)
        fatal_because(name, "not a number in range", EXIT_BAD_USAGE);
    return value;
}

static const char *absolute(const char *name, const char *path)
{
    char *whole = realpath(path, NULL);
    if (!whole)
        fatal_because(name, strerror(errno), EXIT_LAUNCH_FAILED);
    return whole;
}

static void take_cgroup(struct options *options, const char *value)
{
    if (options->cgroup_count == CGROUPS_MAX)
        fatal_because("--cgroup", "too many", EXIT_BAD_USAGE);
    options->cgroups[options->cgroup_count++] = absolute("--cgroup", value);
}

static void take_layer(struct options *options, const char *value)
{
    if (options->layer_count == LAYERS_MAX)
        fatal_because("--layer-fd", "too many", EXIT_BAD_USAGE);
    options->layers[options->layer_count++] = (int)number("--layer-fd", value, INT_MAX);
}

static void take_runsc_flag(struct options *options, const char *value)
{
    if (options->runsc_flag_count == RUNSC_FLAGS_MAX)
        fatal_because("--runsc-flag", "too many", EXIT_BAD_USAGE);
    options->runsc_flags[options->runsc_flag_count++] = value;
}

static bool take_path(struct options *options, const char *name, const char *value)
{
    if (!strcmp(name, "--root"))
        options->root = absolute(name, value);
    else if (!strcmp(name, "--state"))
        options->state = absolute(name, value);
    else if (!strcmp(name, "--exit"))
        options->exit_path = absolute(name, value);
    else if (!strcmp(name, "--bundle"))
        options->bundle = absolute(name, value);
    else if (!strcmp(name, "--cgroup"))
        take_cgroup(options, value);
    else if (!strcmp(name, "--hostname"))
        options->hostname = value;
    else if (!strcmp(name, "--runsc"))
        options->runsc = absolute(name, value);
    else if (!strcmp(name, "--runsc-config"))
        options->bundle_config = absolute(name, value);
    else if (!strcmp(name, "--runsc-flag"))
        take_runsc_flag(options, value);
    else
        return false;
    return true;
}

static bool take_number(struct options *options, const char *name, const char *value)
{
    if (!strcmp(name, "--channel")) {
        options->channel = (int)number(name, value, INT_MAX);
    } else if (!strcmp(name, "--image-fd")) {
        options->image_fd = (int)number(name, value, INT_MAX);
    } else if (!strcmp(name, "--disk-fd")) {
        options->disk_fd = (int)number(name, value, INT_MAX);
    } else if (!strcmp(name, "--id-base")) {
        options->id_base = (unsigned)number(name, value, UINT_MAX - IDS);
        options->ranged = true;
    } else if (!strcmp(name, "--disk-base")) {
        options->disk_base = (unsigned)number(name, value, UINT_MAX - IDS);
        options->disk_based = true;
    } else if (!strcmp(name, "--layer-fd")) {
        take_layer(options, value);
    } else if (!strcmp(name, "--tmp-mib")) {
        options->tmp_mib = (unsigned)number(name, value, MIB_MAX);
    } else if (!strcmp(name, "--shm-mib")) {
        options->shm_mib = (unsigned)number(name, value, MIB_MAX);
    } else if (!strcmp(name, "--watched-mib")) {
        options->watched_mib = (unsigned)number(name, value, MIB_MAX);
    } else if (!strcmp(name, "--nofile")) {
        options->limits.open_files = number(name, value, INT_MAX);
    } else if (!strcmp(name, "--nproc")) {
        options->limits.processes = number(name, value, INT_MAX);
    } else if (!strcmp(name, "--fsize-mib")) {
        options->limits.file_bytes = number(name, value, MIB_MAX) << 20;
    } else {
        return false;
    }
    return true;
}

static bool take_flag(struct options *options, const char *name)
{
    if (!strcmp(name, "--host-usr"))
        options->host_usr = true;
    else if (!strcmp(name, "--await-claim"))
        options->awaits_claim = true;
    else
        return false;
    return true;
}

void options_parse_limits(struct options *options, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (take_flag(options, argv[i]))
            continue;
        if (i + 1 >= argc || !take_number(options, argv[i], argv[i + 1]))
            fatal_because(argv[i], "unknown option", EXIT_BAD_USAGE);
        i++;
    }
}

void options_parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){.channel = -1, .image_fd = -1, .disk_fd = -1, .hostname = "sandbox"};
    options->tmp_mib = 256;
    options->shm_mib = 64;
    for (int i = 0; i < argc; i++) {
        if (take_flag(options, argv[i]))
            continue;
        if (i + 1 >= argc)
            fatal_because(argv[i], "value missing", EXIT_BAD_USAGE);
        if (!take_path(options, argv[i], argv[i + 1]) && !take_number(options, argv[i], argv[i + 1]))
            fatal_because(argv[i], "unknown option", EXIT_BAD_USAGE);
        i++;
    }
    struct stat channel;
    if (!options->root == (options->image_fd < 0) || !options->state)
        fatal_because("usage", "--state and one of --root and --image-fd are required", EXIT_BAD_USAGE);
    if ((options->image_fd >= 0 || options->disk_fd >= 0 || options->layer_count) && !options->ranged)
        fatal_because("--image-fd, --disk-fd and --layer-fd", "need --id-base", EXIT_BAD_USAGE);
    if (!options->disk_based)
        options->disk_base = options->id_base;
    if (options->disk_based && options->disk_fd < 0 && !options->layer_count)
        fatal_because("--disk-base", "needs --disk-fd or --layer-fd", EXIT_BAD_USAGE);
    if (options->awaits_claim && options->exit_path)
        fatal_because("--await-claim", "the exit comes with the claim", EXIT_BAD_USAGE);
    if (options->runsc && !options->bundle_config)
        fatal_because("usage", "--runsc needs --runsc-config", EXIT_BAD_USAGE);
    if (options->channel < 3 || fstat(options->channel, &channel) || !S_ISSOCK(channel.st_mode))
        fatal_because("--channel", "not an inherited socket above 2", EXIT_BAD_USAGE);
}
