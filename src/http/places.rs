//! Connections under way, by the network they come from.
//!
//! Promises: no more than so many; where there is no place, the network that has most gives up its oldest, so that whoever has
//! fewer than the others is never the one to go.
//! Can miss: an attacker with as many networks as there are places.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Those that are under way, of each network the oldest first.
type UnderWay = BTreeMap<IpAddr, VecDeque<CancellationToken>>;

/// So many places.
#[derive(Clone)]
pub(crate) struct Places {
    most: usize,
    under_way: Arc<Mutex<UnderWay>>,
}

/// One of them, until it is dropped or given up.
pub(crate) struct Place {
    places: Places,
    network: IpAddr,
    given_up: CancellationToken,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            under_way: Arc::default(),
        }
    }

    pub(crate) fn enter(&self, address: IpAddr) -> Place {
        let network = network(address);
        let given_up = CancellationToken::new();
        let mut under_way = self.under_way();
        if under_way.values().map(VecDeque::len).sum::<usize>() >= self.most
            && let Some(most) = under_way.values_mut().max_by_key(|of| of.len())
            && let Some(oldest) = most.pop_front()
        {
            oldest.cancel();
            under_way.retain(|_, of| !of.is_empty());
        }
        under_way
            .entry(network)
            .or_default()
            .push_back(given_up.clone());
        drop(under_way);
        Place {
            places: self.clone(),
            network,
            given_up,
        }
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves once another connection was given this place.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.places.under_way();
        if let Entry::Occupied(mut of) = under_way.entry(self.network) {
            of.get_mut().retain(|other| *other != self.given_up);
            if of.get().is_empty() {
                of.remove();
            }
        }
    }
}

/// Who has one address of IPv6 has 2^64 of them, as a rule.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64;

    fn v4(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    fn given_up(places: &[Place]) -> Vec<usize> {
        let each = places.iter().enumerate();
        each.filter(|(_, place)| place.given_up.is_cancelled())
            .map(|(n, _)| n)
            .collect()
    }

    #[test]
    fn who_has_most_gives_up_the_oldest() {
        let all = Places::new(MOST);
        let few = all.enter(v4(1));
        let mut many: Vec<_> = (1..MOST).map(|_| all.enter(v4(2))).collect();
        assert!(given_up(&many).is_empty());
        let newer = all.enter(v4(3));
        many.push(all.enter(v4(2)));
        assert_eq!(given_up(&many), [0, 1]);
        assert!(given_up(&[few, newer]).is_empty());
    }

    #[test]
    fn a_place_that_is_left_is_free_again_and_nothing_is_kept() {
        let all = Places::new(MOST);
        let mut places: Vec<_> = (0..MOST).map(|n| all.enter(v4((n % 8) as u8))).collect();
        places.pop();
        places.push(all.enter(v4(9)));
        assert!(given_up(&places).is_empty());
        places.push(all.enter(v4(9)));
        assert_eq!(given_up(&places).len(), 1);
        let left = all.under_way().values().map(VecDeque::len).sum::<usize>();
        assert_eq!(left, MOST);
        places.clear();
        assert!(all.under_way().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        for (address, counted) in [
            ("2001:db8::1", "2001:db8::"),
            ("2001:db8::ffff:0:0:2", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            let counted: IpAddr = counted.parse().unwrap();
            assert_eq!(network(address.parse().unwrap()), counted, "{address}");
        }
    }
}
