//! What may be a gateway's own host, where its admin port is: by its looks, or because a Service stands for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Loopback, link-local and unspecified addresses, also where IPv6 addresses stand for such: mapped, translated or compatible
/// ones, those of NAT64 (with the well-known prefix, or one of those for local use) and of 6to4.
pub fn is_unsafe(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            let is_link_local = (v6.segments()[0] & 0xffc0) == 0xfe80;
            v6.is_loopback() || v6.is_unspecified() || is_link_local || stands_for_unsafe(v6)
        }
    }
}

/// Whether an IPv6 address stands for an IPv4 address that is unsafe.
fn stands_for_unsafe(v6: Ipv6Addr) -> bool {
    let bytes = v6.octets();
    let at = |places: [usize; 4]| IpAddr::V4(Ipv4Addr::from(places.map(|place| bytes[place])));
    match v6.segments() {
        // Mapped (RFC 4291), translated (RFC 2765), compatible; NAT64's own prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            is_unsafe(at([12, 13, 14, 15]))
        }
        // Prefixes for local use (RFC 8215) have 48, 56, 64 or 96 bits, and nobody knows which. Where zeros stand before the
        // address, they are none.
        [0x64, 0xff9b, 1, ..] => {
            let shorter = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]].map(at);
            is_unsafe(at([12, 13, 14, 15])) || shorter.into_iter().any(|ip| !ip.is_unspecified() && is_unsafe(ip))
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => is_unsafe(at([2, 3, 4, 5])),
        _ => false,
    }
}

/// Whether an address is the caller's own host by its looks: a Unix socket, an IP address, a number that resolvers take for
/// one, or `localhost`.
pub fn may_reach_itself(host: &str) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return is_unsafe(ip);
    }
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or(host);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    // What the files of hosts on common systems name so.
    let is_own = ["localhost", "localdomain", "ip6-localhost", "ip6-loopback"].contains(&last);
    host.starts_with('/') || is_number || is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_may_be_the_gateway_itself() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.1", true),
            ("2130706433", true),
            ("0x7f000001", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("fe80::1", true),
            ("169.254.1.1", true),
            ("::ffff:0:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::127.0.0.1", true),
            ("::169.254.169.254", true),
            ("::10.1.2.3", false),
            ("64:ff9b::127.0.0.1", true),
            ("64:ff9b::169.254.169.254", true),
            ("64:ff9b::0.0.0.0", true),
            ("64:ff9b::10.1.2.3", false),
            // 127.0.0.1 behind 96, 48, 56 and 64 bits.
            ("64:ff9b:1::127.0.0.1", true),
            ("64:ff9b:1:7f00:0:100::", true),
            ("64:ff9b:1:7f:0:1::", true),
            ("64:ff9b:1:0:7f:0:100:0", true),
            ("64:ff9b:1:fffe::169.254.169.254", true),
            ("64:ff9b:1::10.1.2.3", false),
            ("64:ff9b:2::127.0.0.1", false),
            ("2002:7f00:1::1", true),
            ("2002:a9fe:a9fe::", true),
            ("2002:a01:203::1", false),
            ("localhost", true),
            ("localhost.", true),
            ("a.localhost", true),
            ("localhost.localdomain", true),
            ("ip6-localhost", true),
            ("ip6-loopback.", true),
            ("10.1.2.3", false),
            ("2001:db8::1", false),
            ("issuer.example.com", false),
            ("localhost.example.com", false),
            ("a1", false),
            ("/run/envoy.sock", true),
        ] {
            assert_eq!(may_reach_itself(host), expected, "{host}");
        }
    }
}
