#define _GNU_SOURCE
#include "init.h"

#include "bridge.h"
#include "claim.h"
#include "events.h"
#include "fatal.h"
#include "hold.h"
#include "launch.h"
#include "orders.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_PORT "/dev/vport0p1"
#define CHANNEL_PORT "/dev/vport0p2"
#define EXIT_PORT "/dev/vport0p3"
#define EXIT_PATH "/run/exit"
#define BUNDLE_PATH "/run/bundle.pem"

enum { PORT_TRIES = 10000, ENTROPY_MAX = 512, ARGUMENTS_MAX = 64, CHANNEL_FD = 3, LINE_MAX_BYTES = 400 };

static struct watch control, launcher, complaints;
static int own_argc;
static char **own_argv;
static uint8_t incoming[ORDER_HEAD];
static char line[LINE_MAX_BYTES];
static size_t line_length;
static int unclaimed = -1; /* our end of the channel of an agent that waits for its claim */

void init_end(const char *step, int error)
{
    if (error)
        dprintf(STDERR_FILENO, "handiwork-guest: %s: %s\n", step, strerror(error));
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

/* The machine. */

static void make(const char *path)
{
    if (mkdir(path, 0755) && errno != EEXIST)
        init_end(path, errno);
}

static void mount_new(const char *type, const char *path, unsigned long flags, const char *data)
{
    make(path);
    if (mount(type, path, type, flags, data))
        init_end(path, errno);
}

/* In the order of the list, which names what each one needs before it. */
static void load_modules(void)
{
    char path[256];
    FILE *list = fopen("/modules.list", "re");
    if (!list)
        init_end("/modules.list", errno);
    while (fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
            init_end(path, errno);
        close(fd);
    }
    fclose(list);
}

/* The first root file system can be neither left nor pivoted from: a second one is moved over it. */
static void leave_first_root(void)
{
    mount_new("tmpfs", "/new", MS_NOSUID, "mode=755");
    if (chdir("/new"))
        init_end("/new", errno);
    mount_new("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_new("sysfs", "sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_new("devtmpfs", "dev", MS_NOSUID, "mode=755");
    if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        init_end("root", errno);
    mount_new("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    make("/run");
}

static void wait_for(const char *path)
{
    for (int i = 0; i < PORT_TRIES && access(path, F_OK); i++)
        usleep(1000);
}

static void mount_disks(void)
{
    make("/image");
    make("/state");
    wait_for("/dev/vdb");
    if (mount("/dev/vda", "/image", "erofs", MS_RDONLY | MS_NODEV, NULL))
        init_end("/dev/vda", errno);
    if (mount("/dev/vdb", "/state", "ext4", MS_NODEV | MS_NOATIME, "commit=1"))
        init_end("/dev/vdb", errno);
}

static int open_port(const char *path)
{
    struct pollfd port = {.events = POLLIN};
    wait_for(path);
    port.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (port.fd < 0)
        init_end(path, errno);
    for (int i = 0; i < PORT_TRIES && poll(&port, 1, 0) >= 0 && port.revents & POLLHUP; i++)
        usleep(1000);
    return port.fd;
}

/* Orders. */

static void answer(uint8_t kind, const char *text, size_t length)
{
    uint8_t head[ORDER_HEAD] = {(uint8_t)length, (uint8_t)(length >> 8), 0, 0, kind};
    if (write(control.fd, head, sizeof head) != sizeof head ||
        (length && write(control.fd, text, length) != (ssize_t)length))
        init_end("control", EIO);
}

static void set_clock(uint64_t unix_ns)
{
    struct timespec now = {.tv_sec = (time_t)(unix_ns / 1000000000), .tv_nsec = (long)(unix_ns % 1000000000)};
    if (clock_settime(CLOCK_REALTIME, &now))
        init_end("clock", errno);
}

/* Machines that wake from one memory would otherwise draw the same numbers. */
static void reseed(const uint8_t *bytes, size_t length)
{
    struct {
        struct rand_pool_info info;
        uint8_t bytes[ENTROPY_MAX];
    } pool = {.info = {.entropy_count = (int)length * 8, .buf_size = (int)length}};
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (!length || length > ENTROPY_MAX)
        init_end("entropy", EINVAL);
    memcpy(pool.bytes, bytes, length);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG))
        init_end("entropy", errno);
    close(fd);
}

static void freshen(struct order *order)
{
    size_t length;
    uint64_t now = order_u64(order);
    const uint8_t *entropy = order_bytes(order, &length);
    if (order->bad)
        init_end("order", EPROTO);
    set_clock(now);
    reseed(entropy, length);
}

static void make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0755) && errno != EEXIST)
            init_end(path, errno);
        *slash = '/';
    }
}

/* An empty content stands for a directory. */
static void write_file(struct order *order)
{
    size_t length;
    char *path = order_text(order);
    const uint8_t *content = order_bytes(order, &length);
    if (order->bad || !path || *path != '/')
        init_end("order", EPROTO);
    make_parents(path);
    if (!length) {
        if (mkdir(path, 0755) && errno != EEXIST)
            init_end(path, errno);
    } else {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, content, length) != (ssize_t)length)
            init_end(path, errno);
        close(fd);
    }
    free(path);
}

/* The state's owner inside is the first id of the range, as on a host. */
static void prepare_state(unsigned owner)
{
    static const char *const names[] = {"/state/upper", "/state/work"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mkdir(names[i], 0755) ? errno != EEXIST : chown(names[i], owner, owner))
            init_end(names[i], errno);
}

static _Noreturn void launch_here(int channel, int stderr_fd, int argument_count, char **arguments)
{
    struct options options;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(channel, CHANNEL_FD) < 0 || dup2(stderr_fd, STDERR_FILENO) < 0)
        fatal("descriptors");
    options_parse(&options, argument_count, arguments);
    _exit(launch(&options, own_argc, own_argv));
}

static void said(struct watch *watch, uint32_t events)
{
    (void)events;
    ssize_t got = read(watch->fd, line + line_length, sizeof line - line_length);
    if (got > 0)
        line_length += (size_t)got;
    if (got == 0 || line_length == sizeof line)
        watch_close(watch);
}

static void launcher_ended(struct watch *watch, uint32_t events)
{
    (void)events;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    if (complaints.fd >= 0)
        said(&complaints, 0);
    watch_close(watch);
    answer(ANSWER_ENDED, line, line_length);
    init_end("launch", 0);
}

/* Returns our end of the agent's channel. */
static int start_launcher(int argument_count, char **arguments)
{
    int pair[2], errors[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(errors, O_CLOEXEC))
        init_end("launch", errno);
    pid_t pid = fork();
    if (pid < 0)
        init_end("launch", errno);
    if (!pid)
        launch_here(pair[1], errors[1], argument_count, arguments);
    int ended = (int)syscall(SYS_pidfd_open, pid, 0);
    if (ended < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK) || fcntl(errors[0], F_SETFL, O_NONBLOCK))
        init_end("launch", errno);
    close(pair[1]);
    close(errors[1]);
    watch_open(&launcher, ended, launcher_ended);
    watch_want(&launcher, EPOLLIN);
    watch_open(&complaints, errors[0], said);
    watch_want(&complaints, EPOLLIN);
    return pair[0];
}

/* Waits until the agent says that it stands; false when it ended, which the launcher's end tells. */
static bool stands(int channel)
{
    struct pollfd said = {.fd = channel, .events = POLLIN};
    char byte = 0;
    while (poll(&said, 1, -1) < 0 && errno == EINTR)
        continue;
    return read(channel, &byte, 1) == 1 && byte == 1;
}

/* False when there is no sandbox after all. */
static bool start(struct order *order)
{
    char *arguments[ARGUMENTS_MAX];
    bool awaits_claim = false;
    int count = 0;
    freshen(order);
    prepare_state(order_u32(order));
    for (uint32_t left = order_u32(order); left && !order->bad; left--)
        write_file(order);
    for (uint32_t left = order_u32(order); left && !order->bad; left--) {
        if (count == ARGUMENTS_MAX || !(arguments[count] = order_text(order)))
            init_end("order", EPROTO);
        awaits_claim |= !strcmp(arguments[count++], "--await-claim");
    }
    if (order->bad || order->left)
        init_end("order", EPROTO);
    int channel = start_launcher(count, arguments);
    if (!awaits_claim) {
        relay_serve(open_port(CHANNEL_PORT), channel);
        return true;
    }
    unclaimed = channel;
    return stands(channel);
}

static void add_to_bundle(struct order *order)
{
    size_t length;
    const uint8_t *more = order_bytes(order, &length);
    int fd = open(BUNDLE_PATH, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (order->bad || fd < 0 || write(fd, more, length) != (ssize_t)length)
        init_end(BUNDLE_PATH, order->bad ? EPROTO : errno);
    close(fd);
}

/* What an agent waited for: a name, trust and a way out; from here on the host talks to it. */
static void give_claim(struct order *order)
{
    struct claim claim = {0};
    freshen(order);
    char *name = order_text(order);
    if (unclaimed < 0 || !name || strlen(name) > CLAIM_NAME_BYTES)
        init_end("claim", EPROTO);
    strcpy(claim.hostname, name);
    free(name);
    add_to_bundle(order);
    claim.exit_socket = open(EXIT_PATH, O_PATH | O_CLOEXEC);
    if (order->left || claim.exit_socket < 0 || !claim_give(unclaimed, &claim))
        init_end("claim", order->left ? EPROTO : errno);
    close(claim.exit_socket);
    relay_serve(open_port(CHANNEL_PORT), unclaimed);
    unclaimed = -1;
}

/* Nothing of the sandbox runs between a hold and this: it finds the clock set and drawn numbers new. */
static void go_on(struct order *order)
{
    freshen(order);
    if (!hold_release())
        init_end("hold", errno);
}

static void obey(uint8_t kind, struct order *order)
{
    bool still;
    switch (kind) {
    case ORDER_START:
        if (!start(order))
            return;
        break;
    case ORDER_CLAIM: give_claim(order); break;
    case ORDER_RESUME: go_on(order); break;
    case ORDER_HOLD:
        still = hold_sandbox();
        sync(); /* also where one process did not stand still: the machine may end now */
        if (!still) {
            answer(ANSWER_BUSY, NULL, 0);
            return;
        }
        break;
    default: init_end("order", EPROTO);
    }
    answer(ANSWER_READY, NULL, 0);
}

static void read_whole(int fd, uint8_t *to, size_t length)
{
    struct pollfd port = {.fd = fd, .events = POLLIN};
    while (length) {
        ssize_t got = read(fd, to, length);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            init_end("control", got ? errno : 0);
        if (got < 0 && poll(&port, 1, -1) < 0)
            continue;
        to += got > 0 ? got : 0;
        length -= got > 0 ? (size_t)got : 0;
    }
}

/* The host sends an order whole, and no other before it is answered; so waiting for its rest is short. */
static void ordered(struct watch *watch, uint32_t events)
{
    (void)events;
    read_whole(watch->fd, incoming, sizeof incoming);
    struct order head = {.at = incoming, .left = sizeof incoming};
    size_t length = order_u32(&head);
    uint8_t *body = length <= ORDER_MAX ? malloc(length + 1) : NULL;
    if (!body)
        init_end("order", EMSGSIZE);
    read_whole(watch->fd, body, length);
    struct order order = {.at = body, .left = length};
    obey(incoming[4], &order);
    free(body);
}

void init(int argc, char **argv)
{
    own_argc = argc;
    own_argv = argv;
    umask(022);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        init_end("signals", errno);
    load_modules();
    leave_first_root();
    mount_disks();
    events_open();
    bridge_serve(open_port(EXIT_PORT), EXIT_PATH);
    watch_open(&control, open_port(CONTROL_PORT), ordered);
    watch_want(&control, EPOLLIN);
    answer(ANSWER_READY, NULL, 0);
    for (;;)
        events_turn(true);
}
