/* The verbs of the program: launch, init, jail, kvm, mount, serve, probe, version. */
#include "channel.h"
#include "erofs.h"
#include "fatal.h"
#include "init.h"
#include "jail.h"
#include "kvm.h"
#include "launch.h"
#include "probe.h"
#include "serve.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct options options;
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "launch")) {
        options_parse(&options, argc - 2, argv + 2);
        return launch(&options, argc, argv);
    }
    /* What a kernel starts first; its further arguments are words of the kernel's command line. */
    if (!strcmp(argv[0], "/init") && getpid() == 1)
        init(argc, argv);
    if (!strcmp(verb, "jail"))
        return jail(argc - 2, argv + 2);
    if (!strcmp(verb, "kvm") && argc == 2)
        return kvm_probe();
    if (!strcmp(verb, "mount") && argc == 4)
        return erofs_mount(argv[2], argv[3]);
    if (!strcmp(verb, "serve"))
        serve(argc, argv);
    if (!strcmp(verb, "probe") && argc == 2)
        return probe();
    if (!strcmp(verb, "version") && argc == 2) {
        printf("%d\n", PROTOCOL_VERSION);
        return 0;
    }
    fatal_because("usage", "launch OPTIONS | jail OPTIONS | kvm | mount FD FILE | serve OPTIONS | probe | version",
                  EXIT_BAD_USAGE);
}
