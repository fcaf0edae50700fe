//! Sets of addresses, written as ranges (CIDR, RFC 4632).

use std::net::IpAddr;

use ipnet::IpNet;

use super::at::At;
use super::lenient::{Lenient, quote_text};

/// A set of IP addresses; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Each connection is looked up in the list from its beginning.
const MOST_RANGES: usize = 1024;

impl Networks {
    /// Whether an address is in it. What came over an IPv6 socket as `::ffff:10.0.0.1` is `10.0.0.1`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A list of ranges and addresses that may be absent: `Some(None)`.
pub(super) fn networks(name: &str, value: Lenient<Vec<Lenient<String>>>, at: &mut At<'_>) -> Option<Option<Networks>> {
    if value.is_absent() {
        return Some(None);
    }
    let ranges = at.list(name, value, MOST_RANGES, |text, at| match range(&text) {
        Ok(range) => Some(range),
        Err(message) => at.note(message),
    })?;
    ranges.into_iter().collect::<Option<Vec<IpNet>>>().map(|ranges| Some(Networks(ranges)))
}

fn range(text: &str) -> Result<IpNet, String> {
    let quoted = quote_text(text);
    let range = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let range: IpNet = range.map_err(|_| format!("{quoted} is no range or address, such as `10.0.0.0/8` or `::1`"))?;
    match range {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{quoted} is IPv4 in the form of IPv6: write it as IPv4, such as `10.0.0.0/8`"))
        }
        _ if range != range.trunc() => Err(format!("{quoted} has bits behind its prefix: write `{}`", range.trunc())),
        _ => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[&str]) -> Networks {
        Networks(ranges.iter().map(|text| range(text).unwrap()).collect())
    }

    #[test]
    fn an_address_is_in_the_ranges_that_have_its_prefix() {
        let set = set(&["10.0.0.0/8", "192.168.1.7", "fd00::/8", "::1"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.168.1.7", "::ffff:10.1.2.3", "fd12::1", "::1"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "9.255.255.255", "192.168.1.8", "::ffff:11.0.0.1", "fe80::1", "::2", "0.0.0.1"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(Networks::default().is_empty());
    }

    #[test]
    fn everybody_can_be_said() {
        assert!(set(&["0.0.0.0/0"]).contains("203.0.113.9".parse().unwrap()));
        assert!(!set(&["0.0.0.0/0"]).contains("2001:db8::1".parse().unwrap()));
        assert!(set(&["::/0"]).contains("2001:db8::1".parse().unwrap()));
    }
}
