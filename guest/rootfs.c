#define _GNU_SOURCE
#include "rootfs.h"

#include "fatal.h"
#include "mounts.h"
#include "outer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUNDLE_PATH "/etc/ssl/certs/ca-certificates.crt"

static const char *const devices[DEVICES] = {"null", "zero", "full", "random", "urandom", "tty"};

static void make_directory(const char *path, mode_t mode)
{
    if (mkdir(path, mode) && errno != EEXIST)
        fatal(path);
}

/* The same inside, where an image or an earlier life of the guest may have left anything under that name. */
static void ensure_directory(const char *path, mode_t mode)
{
    struct stat there, root;
    if (stat("/", &root))
        fatal("/");
    /* A link may lead to another directory, but not into a mount, where nothing might be made. */
    if (!stat(path, &there) && S_ISDIR(there.st_mode) && there.st_dev == root.st_dev)
        return;
    if (unlink(path) && errno != ENOENT)
        fatal(path);
    make_directory(path, mode);
}

/* Takes what stands in the way out of it; a directory, which may hold anything, is kept beside. */
static void clear_place(const char *path)
{
    char aside[PATH_MAX];
    if (!unlink(path) || errno == ENOENT)
        return;
    for (unsigned number = 0; errno == EISDIR || errno == EEXIST; number++) {
        snprintf(aside, sizeof aside, "%s.%u", path, number);
        if (!syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, aside, RENAME_NOREPLACE))
            return;
    }
    fatal(path);
}

static void ensure_file(const char *path)
{
    struct stat there;
    if (!lstat(path, &there) && S_ISREG(there.st_mode))
        return;
    clear_place(path);
    int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (file < 0)
        fatal(path);
    close(file);
}

static void mount_at(const char *type, const char *target, unsigned long flags, const char *data)
{
    if (mount(type, target, type, flags, data))
        fatal(target);
}

static int with_attributes(int tree, const char *step, uint64_t attributes)
{
    struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
    if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr))
        fatal(step);
    return tree;
}

static int clone_tree(const char *path, uint64_t attributes)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, flags);
    /* In a user namespace a mount cannot be copied without what is mounted on it. */
    if (tree < 0 && errno == EINVAL)
        tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, flags | AT_RECURSIVE);
    return with_attributes(tree, path, attributes);
}

/* A mount that belongs to nobody's tree yet can be copied from Linux 6.15 on. */
static int clone_mount(const char *step, int mount, uint64_t attributes)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    int tree = with_attributes((int)syscall(SYS_open_tree, mount, "", flags), step, attributes);
    close(mount); /* it shows the host's ids */
    return tree;
}

static void attach(int tree, const char *target)
{
    unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, flags))
        fatal(target);
    close(tree);
}

/* By its path: what /proc/self/exe leads to may lie in the mount namespace that we came from. */
static int clone_own_program(uint64_t attributes)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0)
        fatal("/proc/self/exe");
    path[length] = 0;
    return clone_tree(path, attributes);
}

void rootfs_open_sources(struct sources *sources, const struct options *options)
{
    const uint64_t still = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    if (options->root)
        sources->image = clone_tree(options->root, still);
    else
        sources->image = clone_mount("image-fd", options->image_fd, still);
    sources->disk = -1;
    if (options->disk_fd >= 0)
        sources->disk = clone_mount("disk-fd", options->disk_fd, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    for (unsigned i = 0; i < options->layer_count; i++)
        sources->layers[i] = clone_mount("layer-fd", options->layers[i], still);
    /* Not idmapped: what only the host's root may read in its /usr is not the sandbox's to read. */
    sources->usr = options->host_usr ? clone_tree("/usr", still) : -1;
    sources->bundle = options->bundle ? clone_tree(options->bundle, still | MOUNT_ATTR_NOEXEC) : -1;
    for (int i = 0; i < DEVICES; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/%s", devices[i]);
        sources->devices[i] = clone_tree(path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    }
    if (!options->runsc)
        return;
    sources->outer_usr = clone_tree("/usr", still);
    sources->runsc = clone_tree(options->runsc, still);
    sources->agent = clone_own_program(still);
    sources->runsc_config = clone_tree(options->bundle_config, still | MOUNT_ATTR_NOEXEC);
}

static void map_ids(const char *step, int tree, int users)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)users};
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr))
        fatal(step);
}

static int users_of(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int users = open(path, O_RDONLY | O_CLOEXEC);
    if (users < 0)
        fatal(path);
    return users;
}

void rootfs_map_disk(const struct sources *sources, const struct options *options, int pid)
{
    int users = users_of(pid);
    if (sources->disk >= 0)
        map_ids("idmapped disk", sources->disk, users);
    for (unsigned i = 0; i < options->layer_count; i++)
        map_ids("idmapped layer", sources->layers[i], users);
    close(users);
}

void rootfs_map_image(const struct sources *sources, int pid)
{
    int users = users_of(pid);
    map_ids("idmapped image", sources->image, users);
    close(users);
}

void rootfs_prepare_state(const struct options *options)
{
    /* From here on by relative paths: the sandbox's ids may not be able to walk down to it. */
    if (chdir(options->state))
        fatal(options->state);
    make_directory("lower", 0755);
    make_directory("merged", 0755);
    if (options->disk_fd >= 0)
        make_directory("disk", 0755);
    for (unsigned i = 0; i < options->layer_count; i++) {
        char name[16];
        snprintf(name, sizeof name, "layer%u", i);
        make_directory(name, 0755);
    }
}

static void mount_overlay(const struct sources *sources, const struct options *options)
{
    char name[16], data[128 + sizeof name * LAYERS_MAX] = "lowerdir=";
    for (unsigned i = 0; i < options->layer_count; i++) {
        snprintf(name, sizeof name, "layer%u", i);
        attach(sources->layers[i], name);
        strcat(strcat(data, name), ":");
    }
    attach(sources->image, "lower");
    /* Inside a user namespace trusted.* attributes cannot be set; without userxattr a directory that was
     * removed and made again would show the image's files. */
    strcat(data, "lower,userxattr,");
    if (sources->disk >= 0)
        attach(sources->disk, "disk");
    strcat(data, sources->disk < 0 ? "upperdir=upper,workdir=work" : "upperdir=disk/upper,workdir=disk/work");
    if (mount("overlay", "merged", "overlay", MS_NOSUID | MS_NODEV, data))
        fatal("overlay");
}

/* A new /proc can be had only while the old one is in sight, so it is made before the pivot. */
static int new_proc(void)
{
    int context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC);
    if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        fatal("/proc");
    unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    int tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    if (tree < 0)
        fatal("/proc");
    close(context);
    return tree;
}

static void fill_dev(const struct sources *sources, const struct options *options)
{
    static const char *const links[][2] = {
        {"pts/ptmx", "/dev/ptmx"},          {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},  {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };
    char text[64];
    mount_at("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k,nr_inodes=64");
    for (int i = 0; i < DEVICES; i++) {
        snprintf(text, sizeof text, "/dev/%s", devices[i]);
        int file = open(text, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        if (file < 0)
            fatal(text);
        close(file);
        attach(sources->devices[i], text);
    }
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        if (symlink(links[i][0], links[i][1]))
            fatal(links[i][1]);
    make_directory("/dev/pts", 0755);
    /* The kernel has some three thousand terminals for all sandboxes together. */
    mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,max=64");
    make_directory("/dev/shm", 01777);
    snprintf(text, sizeof text, "mode=1777,size=%um", options->shm_mib);
    mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, text);
    if (mount(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL))
        fatal("/dev");
}

static void attach_bundle(int bundle)
{
    static const char *const parents[] = {"/etc", "/etc/ssl", "/etc/ssl/certs"};
    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++)
        ensure_directory(parents[i], 0755);
    ensure_file(BUNDLE_PATH);
    attach(bundle, BUNDLE_PATH);
}

static void pivot(void)
{
    if (chdir("merged") || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        fatal("pivot_root");
}

/* Enters the overlay, with the directories that every sandbox has and the host's /usr if that is wanted. */
static void enter_overlay(const struct sources *sources)
{
    static const char *const directories[] = {"/proc", "/dev", "/sys", "/tmp", "/workspace", "/home"};
    /* Only now are targets looked up: links in the image or in an earlier upper lead nowhere but inside. */
    pivot();
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
        ensure_directory(directories[i], 0755);
    ensure_directory("/root", 0700);
    if (sources->usr >= 0) {
        ensure_directory("/usr", 0755);
        attach(sources->usr, "/usr");
    }
}

void rootfs_enter(const struct sources *sources, const struct options *options)
{
    char text[64];
    mount_overlay(sources, options);
    int proc = new_proc();
    enter_overlay(sources);
    attach(proc, "/proc");
    fill_dev(sources, options);
    snprintf(text, sizeof text, "mode=1777,size=%um", options->tmp_mib);
    mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, text);
    mount_at("tmpfs", "/sys", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k");
    if (sources->bundle >= 0)
        attach_bundle(sources->bundle);
}

static void attach_file(int tree, const char *path)
{
    ensure_file(path);
    attach(tree, path);
}

/* The links through which programs of a merged /usr find their loader and libraries. */
static void link_usr(void)
{
    static const char *const names[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
    char link[16], target[16];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(link, sizeof link, "/%s", names[i]);
        snprintf(target, sizeof target, "usr/%s", names[i]);
        if (symlink(target, link))
            fatal(link);
    }
}

static void fill_outer(const struct sources *sources, const struct options *options, int proc)
{
    static const char *const directories[] = {"/proc", "/dev", "/usr", "/tmp", OUTER_STATE, OUTER_BUNDLE};
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
        make_directory(directories[i], 0755);
    link_usr();
    attach(proc, "/proc");
    attach(sources->outer_usr, "/usr");
    attach_file(sources->runsc, OUTER_RUNSC);
    attach_file(sources->agent, OUTER_AGENT);
    attach_file(sources->runsc_config, OUTER_BUNDLE "/config.json");
    fill_dev(sources, options);
}

void rootfs_enter_outer(const struct sources *sources, const struct options *options)
{
    mount_overlay(sources, options);
    int proc = new_proc();
    enter_overlay(sources);
    /* runsc makes the places of its own mounts; here they are no state of the sandbox, nor does a link of
       the guest lead into them. */
    mount_at("tmpfs", "/proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k");
    mount_at("tmpfs", "/sys", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k");
    mount_at("tmpfs", "/dev", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k");
    mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=755,size=16m");
    if (sources->bundle >= 0)
        attach_bundle(sources->bundle);
    make_directory("/tmp" OUTER_ROOTFS, 0755);
    /* The old root goes below the new one, with all that is mounted in it. */
    if (syscall(SYS_pivot_root, "/tmp", "/tmp" OUTER_ROOTFS) || chdir("/"))
        fatal("pivot_root");
    fill_outer(sources, options, proc);
}

void rootfs_mask_proc(void)
{
    static const char *const files[] = {
        "/proc/kcore",       "/proc/keys",          "/proc/key-users",  "/proc/kmsg",
        "/proc/sched_debug", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/latency_stats",
    };
    static const char *const directories[] = {"/proc/acpi", "/proc/scsi", "/proc/driver"};
    static const char *const still[] = {"/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"};
    const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (mount("/dev/null", files[i], NULL, MS_BIND, NULL) && errno != ENOENT)
            fatal(files[i]);
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
        if (mount("tmpfs", directories[i], "tmpfs", flags, "mode=555,size=4k") && errno != ENOENT)
            fatal(directories[i]);
    for (size_t i = 0; i < sizeof still / sizeof still[0]; i++) {
        if (mount(still[i], still[i], NULL, MS_BIND, NULL)) {
            if (errno == ENOENT)
                continue;
            fatal(still[i]);
        }
        if (mount(NULL, still[i], NULL, MS_BIND | MS_REMOUNT | flags, NULL))
            fatal(still[i]);
    }
}
