#include "hold.h"

#include "events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define GROUP "/sys/fs/cgroup/sandbox/"

enum { HOLD_MS = 20000, EVENTS_BYTES = 256 };

static bool set_frozen(const char *value)
{
    int fd = open(GROUP "cgroup.freeze", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT && *value == '0';
    bool done = write(fd, value, 1) == 1;
    close(fd);
    return done;
}

static bool all_frozen(int events)
{
    char text[EVENTS_BYTES + 1];
    ssize_t got = pread(events, text, EVENTS_BYTES, 0);
    if (got < 0)
        return false;
    text[got] = 0;
    return strstr(text, "frozen 1") != NULL;
}

bool hold_sandbox(void)
{
    struct pollfd events = {.events = POLLPRI};
    events.fd = open(GROUP "cgroup.events", O_RDONLY | O_CLOEXEC);
    uint64_t until = events_now_ms() + HOLD_MS, now;
    if (events.fd < 0)
        return false;
    bool held = set_frozen("1");
    while (held && !all_frozen(events.fd) && (now = events_now_ms()) < until)
        poll(&events, 1, (int)(until - now));
    held = held && all_frozen(events.fd);
    close(events.fd);
    if (!held)
        hold_release();
    return held;
}

bool hold_release(void)
{
    return set_frozen("0");
}
