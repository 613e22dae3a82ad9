//! Networks to which this one has routes of its own.

use std::net::Ipv4Addr;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    base: u32,
    mask: u32,
}

impl Subnet {
    pub(super) const fn new(base: Ipv4Addr, bits: u32) -> Self {
        let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
        Self { base: base.to_bits() & mask, mask }
    }

    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.base
    }
}

/// What this host is attached to, or has another route to than the default one.
pub(super) fn attached() -> Vec<Subnet> {
    parse(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Reads `/proc/net/route` (proc_pid_net(5)): addresses are words of memory in hexadecimal.
fn parse(table: &str) -> Vec<Subnet> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let word = |at: usize| {
                let number = u32::from_str_radix(words.get(at)?, 16).ok()?;
                Some(u32::from_be_bytes(number.to_ne_bytes()))
            };
            let (base, mask) = (word(1)?, word(7)?);
            (mask != 0).then_some(Subnet { base, mask })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_route_is_none_of_them() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\n\
                     eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\nnot a line\n";
        assert_eq!(parse(table), [Subnet::new(Ipv4Addr::new(172, 18, 0, 0), 16)]);
        assert!(parse(table)[0].has(Ipv4Addr::new(172, 18, 255, 1)));
        assert!(!parse(table)[0].has(Ipv4Addr::new(172, 19, 0, 1)));
        assert_eq!(parse(""), []);
    }

    proptest! {
        #[test]
        fn any_table_is_read(table in "[ -~\n\t]{0,200}") {
            let _ = parse(&table);
        }
    }
}
