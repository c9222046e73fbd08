#define _GNU_SOURCE
#include "netns.h"

#include "fatal.h"
#include "netlink.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define TABLE "handiwork"
#define NAT_CHAIN "capture"
#define FILTER_CHAIN "refuse"
#define NFT_TYPE(message) ((NFNL_SUBSYS_NFTABLES << 8) | (message))

enum {
    LOOPBACK_INDEX = 1,
    PORT_OFFSET = 2, /* of the destination port in TCP and UDP */
    IPV4_DESTINATION = 16,
    IPV6_DESTINATION = 24,
    NAT_PRIORITY = -100,
    FILTER_PRIORITY = 0,
};

static struct batch batch;

/* Links, addresses and routes. */

static void raise_loopback(void)
{
    struct ifinfomsg up = {.ifi_index = LOOPBACK_INDEX, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    batch_open(&batch, NETLINK_ROUTE, "loopback");
    batch_message(&batch, RTM_NEWLINK, 0, true, &up, sizeof up);
    batch_commit(&batch);
}

/* Default routes to loopback, so that connecting anywhere gets as far as the rules. */
static void add_routes(void)
{
    uint32_t address = htonl(SANDBOX_ADDRESS), loopback = LOOPBACK_INDEX;
    struct ifaddrmsg own = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = LOOPBACK_INDEX};
    struct rtmsg route = {
        .rtm_family = AF_INET,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_BOOT,
        .rtm_type = RTN_UNICAST,
        .rtm_scope = RT_SCOPE_LINK,
    };
    batch_open(&batch, NETLINK_ROUTE, "routes");
    batch_message(&batch, RTM_NEWADDR, NLM_F_CREATE, true, &own, sizeof own);
    batch_attribute(&batch, IFA_LOCAL, &address, sizeof address);
    batch_message(&batch, RTM_NEWROUTE, NLM_F_CREATE, true, &route, sizeof route);
    batch_attribute(&batch, RTA_OIF, &loopback, sizeof loopback);
    batch_attribute(&batch, RTA_PREFSRC, &address, sizeof address);
    /* A unicast default over loopback is not usable for IPv6; all addresses as local ones are. */
    route.rtm_family = AF_INET6;
    route.rtm_table = RT_TABLE_LOCAL;
    route.rtm_type = RTN_LOCAL;
    route.rtm_scope = RT_SCOPE_UNIVERSE;
    batch_message(&batch, RTM_NEWROUTE, NLM_F_CREATE, true, &route, sizeof route);
    batch_attribute(&batch, RTA_OIF, &loopback, sizeof loopback);
    batch_commit(&batch);
}

/* Rules: each expression puts something into register 1, compares it, or acts. */

static const struct nfgenmsg head = {.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0};

static struct {
    size_t list, element, data;
} open_rule;

static void chain(const char *name, const char *type, int32_t priority)
{
    batch_message(&batch, NFT_TYPE(NFT_MSG_NEWCHAIN), NLM_F_CREATE, true, &head, sizeof head);
    batch_string(&batch, NFTA_CHAIN_TABLE, TABLE);
    batch_string(&batch, NFTA_CHAIN_NAME, name);
    size_t hook = batch_nest(&batch, NFTA_CHAIN_HOOK);
    batch_be32(&batch, NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_OUT);
    batch_be32(&batch, NFTA_HOOK_PRIORITY, (uint32_t)priority);
    batch_nest_end(&batch, hook);
    batch_string(&batch, NFTA_CHAIN_TYPE, type);
}

static void rule(const char *name)
{
    batch_message(&batch, NFT_TYPE(NFT_MSG_NEWRULE), NLM_F_CREATE | NLM_F_APPEND, true, &head, sizeof head);
    batch_string(&batch, NFTA_RULE_TABLE, TABLE);
    batch_string(&batch, NFTA_RULE_CHAIN, name);
    open_rule.list = batch_nest(&batch, NFTA_RULE_EXPRESSIONS);
}

static void rule_end(void)
{
    batch_nest_end(&batch, open_rule.list);
}

static void expression(const char *name)
{
    open_rule.element = batch_nest(&batch, NFTA_LIST_ELEM);
    batch_string(&batch, NFTA_EXPR_NAME, name);
    open_rule.data = batch_nest(&batch, NFTA_EXPR_DATA);
}

static void expression_end(void)
{
    batch_nest_end(&batch, open_rule.data);
    batch_nest_end(&batch, open_rule.element);
}

static void load_meta(uint32_t key)
{
    expression("meta");
    batch_be32(&batch, NFTA_META_KEY, key);
    batch_be32(&batch, NFTA_META_DREG, NFT_REG_1);
    expression_end();
}

static void load_payload(uint32_t base, uint32_t offset, uint32_t size)
{
    expression("payload");
    batch_be32(&batch, NFTA_PAYLOAD_DREG, NFT_REG_1);
    batch_be32(&batch, NFTA_PAYLOAD_BASE, base);
    batch_be32(&batch, NFTA_PAYLOAD_OFFSET, offset);
    batch_be32(&batch, NFTA_PAYLOAD_LEN, size);
    expression_end();
}

static void data(unsigned type, const void *bytes, size_t size)
{
    size_t nest = batch_nest(&batch, type);
    batch_attribute(&batch, NFTA_DATA_VALUE, bytes, size);
    batch_nest_end(&batch, nest);
}

static void require(const void *bytes, size_t size)
{
    expression("cmp");
    batch_be32(&batch, NFTA_CMP_SREG, NFT_REG_1);
    batch_be32(&batch, NFTA_CMP_OP, NFT_CMP_EQ);
    data(NFTA_CMP_DATA, bytes, size);
    expression_end();
}

static void require_protocol(uint8_t protocol)
{
    load_meta(NFT_META_L4PROTO);
    require(&protocol, 1);
}

static void require_port(uint16_t port)
{
    port = htons(port);
    load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET, sizeof port);
    require(&port, sizeof port);
}

/* Holds for packets of connections that were not redirected. */
static void require_unredirected(void)
{
    uint32_t mask = IPS_DST_NAT, none = 0;
    expression("ct");
    batch_be32(&batch, NFTA_CT_KEY, NFT_CT_STATUS);
    batch_be32(&batch, NFTA_CT_DREG, NFT_REG_1);
    expression_end();
    expression("bitwise");
    batch_be32(&batch, NFTA_BITWISE_SREG, NFT_REG_1);
    batch_be32(&batch, NFTA_BITWISE_DREG, NFT_REG_1);
    batch_be32(&batch, NFTA_BITWISE_LEN, sizeof mask);
    data(NFTA_BITWISE_MASK, &mask, sizeof mask);
    data(NFTA_BITWISE_XOR, &none, sizeof none);
    expression_end();
    require(&none, sizeof none);
}

static void verdict(uint32_t code)
{
    expression("immediate");
    batch_be32(&batch, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    size_t nest = batch_nest(&batch, NFTA_IMMEDIATE_DATA);
    size_t inner = batch_nest(&batch, NFTA_DATA_VERDICT);
    batch_be32(&batch, NFTA_VERDICT_CODE, code);
    batch_nest_end(&batch, inner);
    batch_nest_end(&batch, nest);
    expression_end();
}

static void redirect(uint16_t port)
{
    port = htons(port);
    expression("immediate");
    batch_be32(&batch, NFTA_IMMEDIATE_DREG, NFT_REG_1);
    data(NFTA_IMMEDIATE_DATA, &port, sizeof port);
    expression_end();
    expression("redir");
    batch_be32(&batch, NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
    expression_end();
}

static void reject(void)
{
    uint8_t code = NFT_REJECT_ICMPX_PORT_UNREACH;
    expression("reject");
    batch_be32(&batch, NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
    batch_attribute(&batch, NFTA_REJECT_ICMP_CODE, &code, sizeof code);
    expression_end();
}

static void rule_for_destination(const char *name, uint8_t family, uint32_t offset, const void *bytes,
                                 size_t size, uint32_t code)
{
    rule(name);
    load_meta(NFT_META_NFPROTO);
    require(&family, 1);
    load_payload(NFT_PAYLOAD_NETWORK_HEADER, offset, (uint32_t)size);
    require(bytes, size);
    verdict(code);
    rule_end();
}

/* Gives `code` to everything that stays on this machine by its own address. */
static void rules_for_own_addresses(const char *name, uint32_t code)
{
    const uint32_t own = htonl(SANDBOX_ADDRESS);
    const uint8_t loopback_net = 127;
    rule_for_destination(name, NFPROTO_IPV4, IPV4_DESTINATION, &loopback_net, 1, code);
    rule_for_destination(name, NFPROTO_IPV4, IPV4_DESTINATION, &own, sizeof own, code);
    rule_for_destination(name, NFPROTO_IPV6, IPV6_DESTINATION, &in6addr_loopback, 16, code);
}

static void add_capture_rules(void)
{
    static const uint8_t protocols[] = {IPPROTO_UDP, IPPROTO_TCP};
    chain(NAT_CHAIN, "nat", NAT_PRIORITY);
    /* DNS first: a resolver on a loopback address is captured too. */
    for (size_t i = 0; i < sizeof protocols; i++) {
        rule(NAT_CHAIN);
        require_protocol(protocols[i]);
        require_port(53);
        redirect(CAPTURE_DNS_PORT);
        rule_end();
    }
    rules_for_own_addresses(NAT_CHAIN, (uint32_t)NFT_RETURN);
    rule(NAT_CHAIN);
    require_protocol(IPPROTO_TCP);
    redirect(CAPTURE_PORT);
    rule_end();
}

static void add_refusing_rules(void)
{
    static const struct {
        uint8_t protocol;
        uint16_t port;
    } listeners[] = {
        {IPPROTO_TCP, CAPTURE_PORT}, {IPPROTO_TCP, CAPTURE_DNS_PORT}, {IPPROTO_UDP, CAPTURE_DNS_PORT}};
    chain(FILTER_CHAIN, "filter", FILTER_PRIORITY);
    /* Nobody talks to the agent's listeners but through the redirection. */
    for (size_t i = 0; i < sizeof listeners / sizeof listeners[0]; i++) {
        rule(FILTER_CHAIN);
        require_protocol(listeners[i].protocol);
        require_port(listeners[i].port);
        require_unredirected();
        reject();
        rule_end();
    }
    rules_for_own_addresses(FILTER_CHAIN, NF_ACCEPT);
    /* Redirected packets have become loopback ones: what is left was meant for elsewhere. */
    rule(FILTER_CHAIN);
    reject();
    rule_end();
}

static void add_rules(void)
{
    struct nfgenmsg edge = {.version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
    batch_open(&batch, NETLINK_NETFILTER, "nftables");
    batch_message(&batch, NFNL_MSG_BATCH_BEGIN, 0, false, &edge, sizeof edge);
    batch_message(&batch, NFT_TYPE(NFT_MSG_NEWTABLE), NLM_F_CREATE, true, &head, sizeof head);
    batch_string(&batch, NFTA_TABLE_NAME, TABLE);
    add_capture_rules();
    add_refusing_rules();
    batch_message(&batch, NFNL_MSG_BATCH_END, 0, false, &edge, sizeof edge);
    batch_commit(&batch);
}

/* Closed connections are remembered in kernel memory; two minutes of that is more than a sandbox needs. */
static void shorten_memory_of_connections(void)
{
    int fd = open("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "2", 1) != 1)
        fatal("connection memory");
    close(fd);
}

void netns_capture(void)
{
    raise_loopback();
    add_routes();
    add_rules();
    shorten_memory_of_connections();
}
