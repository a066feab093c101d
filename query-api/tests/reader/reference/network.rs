//! `ip`: an address, or a network in CIDR notation.

use std::net::IpAddr;

use super::{Invalid, Test};

/// The client's address is the value, or is in it.
pub(super) fn ip(value: &str) -> Result<Test, Invalid> {
    let (network, bits) = parse(value).ok_or(Invalid)?;
    Ok(Box::new(move |row| {
        !row.ip_address.is_unspecified()
            && has(network, bits, IpAddr::V6(row.ip_address).to_canonical())
    }))
}

fn parse(value: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match value.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (value, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
        Some(_) => return None,
    };
    if bits > most {
        return None;
    }
    // The mapped IPv4 addresses are one IPv6 network of 96 bits.
    match (address, address.to_canonical()) {
        (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if bits >= 96 => Some((v4, bits - 96)),
        _ => Some((address, bits)),
    }
}

fn has(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    // No bits at all are the same in all addresses: then the shift is too far.
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[test]
fn an_address_is_in_a_network_of_its_own_kind() {
    let is_in = |address: &str, value: &str| {
        let (network, bits) = parse(value).unwrap();
        has(network, bits, address.parse().unwrap())
    };
    assert!(is_in("192.0.2.1", "192.0.2.77/24"));
    assert!(is_in("192.0.2.1", "::ffff:192.0.2.0/120"));
    assert!(is_in("192.0.2.1", "0.0.0.0/0"));
    assert!(is_in("192.0.2.1", "::ffff:0.0.0.0/96"));
    assert!(!is_in("192.0.2.1", "::ffff:0.0.0.0/95"));
    assert!(!is_in("192.0.2.1", "::/0"));
    assert!(is_in("2001:db8::1", "2001:db8::/32"));
    assert!(is_in("2001:db8::1", "::/0"));
    assert!(!is_in("2001:db8::1", "2001:db8::/128"));
    for wrong in [
        "",
        "1.2.3",
        "1.2.3.4/33",
        "1.2.3.4/",
        "::/129",
        "::1%lo",
        " ::1",
    ] {
        assert!(parse(wrong).is_none(), "{wrong}");
    }
}
