//! Where a request comes from: the address of its connection, or what a proxy says that is trusted to.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use hyper::{Request as HyperRequest, service::Service};
use warp::http::HeaderMap;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A service that tells each request where it comes from.
#[derive(Debug)]
pub(crate) struct WithPeer<S> {
    pub(crate) service: S,
    pub(crate) peer: Peer,
}

impl<S: Service<HyperRequest<B>>, B> Service<HyperRequest<B>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: HyperRequest<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}

/// Some addresses: one, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An IPv4 address as the IPv6 one that it is mapped to.
    bits: u128,
    prefix: u32,
}

/// A text that is neither `192.0.2.1` nor `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANetwork;

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address such as 192.0.2.1 or a network such as 192.0.2.0/24")
    }
}

impl std::error::Error for NotANetwork {}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let (longest, before) = if address.is_ipv4() {
            (32, 96)
        } else {
            (128, 0)
        };
        let prefix = match prefix {
            Some(digits) => digits.parse().map_err(|_| NotANetwork)?,
            None => longest,
        };
        if prefix > longest {
            return Err(NotANetwork);
        }
        Ok(Self {
            bits: bits(address),
            prefix: before + prefix,
        })
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let differ = self.bits ^ bits(address);
        differ.leading_zeros() >= self.prefix
    }
}

fn bits(address: IpAddr) -> u128 {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.to_bits()
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Who sent a request, as far as that can be believed: from its connection backwards, as long as who speaks is trusted to say for whom.
pub(crate) fn origin(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let mut origin = peer.0.to_canonical();
    let values = headers.get_all(FORWARDED_FOR).iter();
    let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    let said = values.into_iter().rev().flat_map(|value| value.rsplit(','));
    for text in said {
        if !trusted.iter().any(|network| network.has(origin)) {
            break;
        }
        match text.trim().parse::<IpAddr>() {
            Ok(address) => origin = address.to_canonical(),
            Err(_) => break,
        }
    }
    origin
}

/// What counts as one sender: an IPv4 address, or the /64 that an IPv6 customer has for itself.
pub(crate) fn one_sender(address: IpAddr) -> u128 {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => bits(address),
        address @ IpAddr::V6(_) => bits(address) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted
            .split_terminator(' ')
            .map(|it| it.parse().unwrap())
            .collect();
        origin(Peer(peer.parse().unwrap()), &headers, &trusted).to_string()
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        assert_eq!(said("192.0.2.1", &["198.51.100.7"], ""), "192.0.2.1");
        assert_eq!(
            said("192.0.2.1", &["198.51.100.7"], "192.0.2.2"),
            "192.0.2.1"
        );
        assert_eq!(
            said("192.0.2.1", &["198.51.100.7"], "192.0.2.0/24"),
            "198.51.100.7"
        );
        // The first one is whatever the sender wrote.
        assert_eq!(
            said("192.0.2.1", &["1.1.1.1, 198.51.100.7"], "192.0.2.1"),
            "198.51.100.7"
        );
        assert_eq!(
            said(
                "192.0.2.1",
                &["1.1.1.1", "198.51.100.7, 192.0.2.9"],
                "192.0.2.0/24"
            ),
            "198.51.100.7"
        );
        assert_eq!(said("192.0.2.1", &["unknown"], "192.0.2.1"), "192.0.2.1");
        assert_eq!(
            said("::ffff:192.0.2.1", &["2001:db8::1"], "192.0.2.1"),
            "2001:db8::1"
        );
    }

    #[test]
    fn a_network_is_an_address_or_its_first_bits() {
        for bad in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "a.example"] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.has("9.9.9.9".parse().unwrap()) && !all.has("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_customer_of_ipv6_is_one_sender() {
        let one = |text: &str| one_sender(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_ne!(one("192.0.2.1"), one("192.0.2.2"));
        assert_eq!(one("192.0.2.1"), one("::ffff:192.0.2.1"));
    }
}
