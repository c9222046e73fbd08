#define _GNU_SOURCE
#include "terminal.h"

#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { SIZE_MAX_CELLS = 65535, BYTES = 256, RAW_MAX = BYTES - 1, TRY_MS = 1000, TRY_STEP_MS = 1 };

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

/* In a session of its own, which is given a terminal: what that does for it. */
static int try_control(void)
{
    struct terminal terminal;
    sigset_t interrupt;
    struct timespec patience = {.tv_nsec = 100 * 1000 * 1000};
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    if (setsid() < 0 || !terminal_open(&terminal, getuid()) || ioctl(terminal.theirs, TIOCSCTTY, 0))
        return CONTROL_NONE;
    if (open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) >= 0 || errno != EIO)
        return CONTROL_WHOLE;
    if (sigprocmask(SIG_BLOCK, &interrupt, NULL) || write(terminal.ours, "\003", 1) != 1)
        return CONTROL_NONE;
    return sigtimedwait(&interrupt, NULL, &patience) == SIGINT ? CONTROL_KEYS : CONTROL_NONE;
}

/* Waits for it as long as it may take at most: who is inside may have stopped it. */
static int end_of(pid_t pid)
{
    struct timespec pause = {.tv_nsec = TRY_STEP_MS * 1000 * 1000};
    int status = -1;
    for (int left = TRY_MS / TRY_STEP_MS; left; left--) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        nanosleep(&pause, NULL);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return -1;
}

enum control terminal_control(void)
{
    static enum control known = CONTROL_NONE;
    if (known != CONTROL_NONE)
        return known;
    pid_t pid = fork();
    if (!pid)
        _exit(try_control());
    int found = pid > 0 ? end_of(pid) : -1;
    if (found < 0)
        return CONTROL_UNKNOWN;
    known = (enum control)found;
    return known;
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

/* Of so few bytes there is always one that is not among them. */
static cc_t absent(const uint8_t *bytes, size_t length)
{
    bool there[BYTES] = {false};
    size_t value = BYTES - 1;
    for (size_t i = 0; i < length; i++)
        there[bytes[i]] = true;
    while (there[value])
        value--;
    return (cc_t)value;
}

ssize_t terminal_write(int end, const uint8_t *bytes, size_t length)
{
    struct termios theirs, deaf, now;
    if (terminal_control() != CONTROL_KEYS || tcgetattr(end, &theirs) || (theirs.c_lflag & ISIG))
        return write(end, bytes, length);
    if (length > RAW_MAX)
        length = RAW_MAX;
    deaf = theirs;
    deaf.c_cc[VINTR] = deaf.c_cc[VQUIT] = deaf.c_cc[VSUSP] = absent(bytes, length);
    tcsetattr(end, TCSANOW, &deaf);
    ssize_t took = write(end, bytes, length);
    int error = errno;
    /* Whoever read it may have set the terminal anew by now. */
    if (!tcgetattr(end, &now)) {
        static const int keys[] = {VINTR, VQUIT, VSUSP};
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (now.c_cc[keys[i]] == deaf.c_cc[keys[i]])
                now.c_cc[keys[i]] = theirs.c_cc[keys[i]];
        tcsetattr(end, TCSANOW, &now);
    }
    errno = error;
    return took;
}
