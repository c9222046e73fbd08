#include "proc.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t proc_read(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

const char *proc_stat_field(const char *text, int number)
{
    const char *at = strrchr(text, ')');
    for (int i = STAT_STATE - 1; at && i < number; i++)
        at = strchr(at + 1, ' ');
    return at ? at + 1 : "";
}

uint64_t proc_stat_number(const char *text, int number)
{
    return strtoull(proc_stat_field(text, number), NULL, 10);
}

uint64_t proc_status_number(const char *text, const char *label)
{
    const char *line = strstr(text, label);
    return line ? strtoull(line + strlen(label), NULL, 10) : 0;
}
