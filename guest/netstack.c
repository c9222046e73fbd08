#define _GNU_SOURCE
#include "netstack.h"

#include "fatal.h"
#include "netlink.h"
#include "netns.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPBACK_INDEX = 1, TABLE_BYTES = 4096, NAT_HOOKS = 5, DNS_PORT = 53 };

/* A table under construction; entries are 8-byte aligned, as both kernels want. */
struct table {
    bool six;
    uint32_t count, length;
    uint32_t hooks[NAT_HOOKS], policies[NAT_HOOKS];
    _Alignas(8) uint8_t bytes[TABLE_BYTES];
};

static struct table table;
static struct batch batch;

/* The addresses: a prefix of no bits makes all of them ours on loopback, with the route to it. */

static void own_everything(void)
{
    uint32_t four = htonl(SANDBOX_ADDRESS);
    struct in6_addr six = {.s6_addr = {0xfd, [15] = 2}};
    struct ifaddrmsg address = {.ifa_family = AF_INET, .ifa_prefixlen = 0, .ifa_index = LOOPBACK_INDEX};
    batch_open(&batch, NETLINK_ROUTE, "addresses");
    batch_message(&batch, RTM_NEWADDR, NLM_F_CREATE, true, &address, sizeof address);
    batch_attribute(&batch, IFA_LOCAL, &four, sizeof four);
    batch_commit(&batch);
    address.ifa_family = AF_INET6;
    batch_open(&batch, NETLINK_ROUTE, "addresses");
    batch_message(&batch, RTM_NEWADDR, NLM_F_CREATE, true, &address, sizeof address);
    batch_attribute(&batch, IFA_LOCAL, &six, sizeof six);
    batch_commit(&batch);
}

/* The rules: an entry is a head, matches and a target. */

static void *add(size_t size)
{
    size_t padded = (size + 7) & ~(size_t)7;
    if (padded > sizeof table.bytes - table.length)
        fatal_because("iptables", "table too long", EXIT_LAUNCH_FAILED);
    void *place = table.bytes + table.length;
    memset(place, 0, padded);
    table.length += (uint32_t)padded;
    return place;
}

/* What an entry demands; 0 and NULL demand nothing. */
struct demand {
    uint8_t protocol;
    uint16_t port;
    const uint8_t *address;
    uint8_t prefix; /* in whole bytes */
};

static uint32_t open_entry(const struct demand *demand)
{
    uint32_t start = table.length;
    if (table.six) {
        struct ip6t_entry *entry = add(sizeof *entry);
        entry->ipv6.proto = demand->protocol;
        entry->ipv6.flags = demand->protocol ? IP6T_F_PROTO : 0;
        if (demand->address) {
            memcpy(&entry->ipv6.dst, demand->address, demand->prefix);
            memset(&entry->ipv6.dmsk, 0xff, demand->prefix);
        }
    } else {
        struct ipt_entry *entry = add(sizeof *entry);
        entry->ip.proto = demand->protocol;
        if (demand->address) {
            memcpy(&entry->ip.dst, demand->address, demand->prefix);
            memset(&entry->ip.dmsk, 0xff, demand->prefix);
        }
    }
    return start;
}

/* TCP's and UDP's matches begin alike: source ports, then destination ports. */
static void add_port_match(const struct demand *demand)
{
    struct xt_entry_match *match;
    bool tcp = demand->protocol == IPPROTO_TCP;
    size_t size = sizeof *match + (tcp ? sizeof(struct xt_tcp) : sizeof(struct xt_udp));
    uint32_t before = table.length;
    match = add(size);
    match->u.user.match_size = (uint16_t)(table.length - before);
    strcpy(match->u.user.name, tcp ? "tcp" : "udp");
    uint16_t ports[] = {0, 65535, demand->port, demand->port};
    memcpy(match->data, ports, sizeof ports);
}

static void close_entry(uint32_t start, uint32_t target)
{
    uint16_t offset = (uint16_t)(target - start), size = (uint16_t)(table.length - start);
    if (table.six) {
        struct ip6t_entry *entry = (void *)(table.bytes + start);
        entry->target_offset = offset;
        entry->next_offset = size;
    } else {
        struct ipt_entry *entry = (void *)(table.bytes + start);
        entry->target_offset = offset;
        entry->next_offset = size;
    }
    table.count++;
}

static void add_target(const char *name, const void *data, size_t size)
{
    struct xt_entry_target *target;
    uint32_t before = table.length;
    target = add(sizeof *target + size);
    target->u.user.target_size = (uint16_t)(table.length - before);
    strcpy(target->u.user.name, name);
    memcpy(target->data, data, size);
}

static void accept_entry(const struct demand *demand)
{
    struct {
        int32_t verdict, padding;
    } verdict = {.verdict = -NF_ACCEPT - 1};
    uint32_t start = open_entry(demand), target = table.length;
    add_target(XT_STANDARD_TARGET, &verdict, sizeof verdict);
    close_entry(start, target);
}

static void redirect_entry(const struct demand *demand, uint16_t port)
{
    uint32_t start = open_entry(demand);
    if (demand->port)
        add_port_match(demand);
    uint32_t target = table.length;
    port = htons(port);
    if (table.six) {
        struct nf_nat_range range = {.flags = NF_NAT_RANGE_PROTO_SPECIFIED};
        range.min_proto.all = range.max_proto.all = port;
        add_target("REDIRECT", &range, sizeof range);
    } else {
        struct nf_nat_ipv4_multi_range_compat range = {.rangesize = 1};
        range.range[0].flags = NF_NAT_RANGE_PROTO_SPECIFIED;
        range.range[0].min.all = range.range[0].max.all = port;
        add_target("REDIRECT", &range, sizeof range);
    }
    close_entry(start, target);
}

static void end_table(void)
{
    char name[sizeof(struct xt_error_target) - sizeof(struct xt_entry_target)] = "ERROR";
    uint32_t start = open_entry(&(struct demand){0}), target = table.length;
    add_target(XT_ERROR_TARGET, name, sizeof name);
    close_entry(start, target);
}

static void begin_chain(unsigned hook)
{
    table.hooks[hook] = table.length;
}

static void end_chain(unsigned hook)
{
    table.policies[hook] = table.length;
    accept_entry(&(struct demand){0});
}

static void capture_entries(void)
{
    const uint32_t own = htonl(SANDBOX_ADDRESS);
    const uint8_t loopback = 127;
    /* DNS first: a resolver on a loopback address is captured too. */
    redirect_entry(&(struct demand){.protocol = IPPROTO_UDP, .port = DNS_PORT}, CAPTURE_DNS_PORT);
    redirect_entry(&(struct demand){.protocol = IPPROTO_TCP, .port = DNS_PORT}, CAPTURE_DNS_PORT);
    if (table.six) {
        accept_entry(&(struct demand){.address = in6addr_loopback.s6_addr, .prefix = 16});
    } else {
        accept_entry(&(struct demand){.address = &loopback, .prefix = 1});
        accept_entry(&(struct demand){.address = (const uint8_t *)&own, .prefix = 4});
    }
    redirect_entry(&(struct demand){.protocol = IPPROTO_TCP}, CAPTURE_PORT);
}

static void build_table(bool six)
{
    table = (struct table){.six = six};
    begin_chain(NF_INET_PRE_ROUTING);
    end_chain(NF_INET_PRE_ROUTING);
    begin_chain(NF_INET_LOCAL_IN);
    end_chain(NF_INET_LOCAL_IN);
    begin_chain(NF_INET_LOCAL_OUT);
    capture_entries();
    end_chain(NF_INET_LOCAL_OUT);
    begin_chain(NF_INET_POST_ROUTING);
    end_chain(NF_INET_POST_ROUTING);
    end_table();
}

/* The heads of both families' replacements are laid out alike. */
_Static_assert(sizeof(struct ipt_replace) == sizeof(struct ip6t_replace), "one head for both families");

static void replace_table(void)
{
    static _Alignas(8) uint8_t message[sizeof(struct ipt_replace) + TABLE_BYTES];
    static struct xt_counters counters[16];
    struct ipt_replace head = {
        .name = "nat",
        .valid_hooks = 1 << NF_INET_PRE_ROUTING | 1 << NF_INET_LOCAL_IN | 1 << NF_INET_LOCAL_OUT |
                       1 << NF_INET_POST_ROUTING,
        .num_entries = table.count,
        .size = table.length,
        .num_counters = 5, /* of the table that is there: four policies and the end */
        .counters = counters,
    };
    memcpy(head.hook_entry, table.hooks, sizeof head.hook_entry);
    memcpy(head.underflow, table.policies, sizeof head.underflow);
    memcpy(message, &head, sizeof head);
    memcpy(message + sizeof head, table.bytes, table.length);
    int fd = socket(table.six ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd < 0 || setsockopt(fd, table.six ? SOL_IPV6 : SOL_IP, IPT_SO_SET_REPLACE, message,
                             (socklen_t)(sizeof head + table.length)))
        fatal(table.six ? "ip6tables" : "iptables");
    close(fd);
}

void netstack_capture(void)
{
    own_everything();
    for (int six = 0; six < 2; six++) {
        build_table(six);
        replace_table();
    }
}
