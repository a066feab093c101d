//! Addresses and networks, as ranges of the column `ip_address`.
//!
//! The column holds IPv6 addresses, IPv4 ones mapped into `::ffff:0:0/96`, and `::` where no
//! address was given. A network of IPv6 therefore is what remains of it without those two.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

/// The IPv4 addresses in the column: the first and the last.
const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// Addresses from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct AddressRange {
    pub(crate) first: Ipv6Addr,
    pub(crate) last: Ipv6Addr,
}

/// Most addresses that are looked up in their index one by one: those of a network such as
/// `192.0.2.0/28`. For more it is faster to read the column.
const FEW: usize = 16;

/// All addresses of these ranges, if they are few enough to be looked up one by one.
pub(crate) fn few(ranges: &[AddressRange]) -> Option<Vec<Ipv6Addr>> {
    let addresses = ranges
        .iter()
        .flat_map(|range| range.first.to_bits()..=range.last.to_bits());
    let some: Vec<_> = addresses.take(FEW + 1).map(Ipv6Addr::from_bits).collect();
    (some.len() <= FEW).then_some(some)
}

/// The ranges of an address or of a network such as `192.0.2.0/24`.
pub(crate) fn ranges(text: &str) -> Result<Vec<AddressRange>, String> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = address.or_else(|| text.parse().ok());
    let (first, last) = match network {
        Some(IpNet::V4(net)) => (
            net.network().to_ipv6_mapped(),
            net.broadcast().to_ipv6_mapped(),
        ),
        Some(IpNet::V6(net)) => (net.network(), net.broadcast()),
        None => {
            return Err(
                "is no address and no network; write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
                    .to_owned(),
            );
        }
    };
    let (first, last) = (u128::from(first), u128::from(last));
    if MAPPED.0 <= first && last <= MAPPED.1 {
        return Ok(vec![range(first, last)]);
    }
    let below = (first.max(1), last.min(MAPPED.0 - 1));
    let above = (first.max(MAPPED.1 + 1), last);
    let parts = [below, above].into_iter();
    Ok(parts
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| range(first, last))
        .collect())
}

fn range(first: u128, last: u128) -> AddressRange {
    AddressRange {
        first: first.into(),
        last: last.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        let ranges = ranges(text).unwrap();
        let written = |range: &AddressRange| format!("{} {}", range.first, range.last);
        ranges.iter().map(written).collect()
    }

    #[test]
    fn an_address_is_a_range_of_one() {
        assert_eq!(written("192.0.2.1"), ["::ffff:192.0.2.1 ::ffff:192.0.2.1"]);
        assert_eq!(written("::ffff:192.0.2.1"), written("192.0.2.1"));
        assert_eq!(written("2001:db8::1"), ["2001:db8::1 2001:db8::1"]);
    }

    #[test]
    fn the_addresses_of_small_networks_are_few() {
        let few = |texts: &[&str]| {
            let all = texts.iter().flat_map(|text| ranges(text).unwrap());
            Some(few(&all.collect::<Vec<_>>())?.len())
        };
        assert_eq!(few(&["192.0.2.1"]), Some(1));
        assert_eq!(few(&["192.0.2.1/30", "2001:db8::7"]), Some(5));
        assert_eq!(few(&["192.0.2.1/28"]), Some(16));
        assert_eq!(few(&["192.0.2.1/28", "2001:db8::7"]), None);
        assert_eq!(few(&["192.0.2.1/27"]), None);
        assert_eq!(few(&["::/0"]), None);
        assert_eq!(few(&["::"]), Some(0));
    }

    #[test]
    fn the_host_bits_of_a_network_do_not_matter() {
        assert_eq!(
            written("192.0.2.77/24"),
            ["::ffff:192.0.2.0 ::ffff:192.0.2.255"]
        );
        assert_eq!(written("::ffff:192.0.2.0/120"), written("192.0.2.0/24"));
        assert_eq!(written("2001:db8::1/32"), written("2001:db8::/32"));
    }

    #[test]
    fn a_network_of_ipv6_has_neither_ipv4_addresses_nor_the_lack_of_one() {
        assert_eq!(
            written("::/0"),
            [
                "::1 ::fffe:ffff:ffff",
                "::1:0:0:0 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
        assert_eq!(written("::"), [""; 0]);
        assert_eq!(
            written("0.0.0.0/0"),
            ["::ffff:0.0.0.0 ::ffff:255.255.255.255"]
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "x",
            "192.0.2",
            "192.0.2.0/33",
            "1.2.3.4/",
            "2001:db8::/129",
            " 192.0.2.1",
        ] {
            assert!(ranges(text).is_err(), "{text}");
        }
    }
}
