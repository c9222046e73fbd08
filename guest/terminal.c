#define _GNU_SOURCE
#include "terminal.h"

#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE_MAX_CELLS = 65535 };

/* By the end itself rather than by a name: what a guest puts in place of /dev/pts is never opened. */
static int open_peer(int ours)
{
    char name[32];
    unsigned number;
    int peer = ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (peer >= 0 || (errno != ENOTTY && errno != EINVAL) || ioctl(ours, TIOCGPTN, &number))
        return peer;
    /* gVisor has no other way. */
    snprintf(name, sizeof name, "/dev/pts/%u", number);
    peer = path_open(name, O_RDWR);
    if (peer >= 0 && (!isatty(peer) || fcntl(peer, F_SETFL, 0))) {
        close(peer);
        errno = ENOTTY;
        return -1;
    }
    return peer;
}

bool terminal_open(struct terminal *terminal, uid_t uid)
{
    int unlocked = 0;
    unsigned number;
    terminal->theirs = -1;
    terminal->ours = path_open("/dev/ptmx", O_RDWR);
    if (terminal->ours < 0)
        return false;
    /* A guest may have put anything in its place: what has no number is no terminal. */
    if (!ioctl(terminal->ours, TIOCGPTN, &number) && !ioctl(terminal->ours, TIOCSPTLCK, &unlocked))
        terminal->theirs = open_peer(terminal->ours);
    if (terminal->theirs >= 0 && !fchown(terminal->theirs, uid, (gid_t)-1) && !fchmod(terminal->theirs, 0620))
        return true;
    int error = errno;
    close(terminal->ours);
    if (terminal->theirs >= 0)
        close(terminal->theirs);
    terminal->ours = terminal->theirs = -1;
    errno = error;
    return false;
}

bool terminal_resize(int end, uint64_t columns, uint64_t rows)
{
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    if (columns < 1 || rows < 1 || columns > SIZE_MAX_CELLS || rows > SIZE_MAX_CELLS) {
        errno = EINVAL;
        return false;
    }
    return !ioctl(end, TIOCSWINSZ, &size);
}
