//! What is packed into words comes out again, for any value.

use limiter_common::{
    address::{Address, Family, SourceKey, source_mask},
    block::{BlockKey, Length},
    class::{CANDIDATES, CLASSES, Class, Match, Selector, first_common},
    entry::{Charge, Tokens},
    filter::{FILTER_WORDS, FilterBits, is_wide},
    layout::{Kind, LIMITS, NetworkKey},
    verdict::{Action, Outcome, Reason},
};
use proptest::prelude::*;

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<u32>().prop_map(Address::v4),
        any::<(u64, u64)>().prop_map(|(hi, lo)| Address::v6(hi, lo)),
    ]
}

fn any_match() -> impl Strategy<Value = Match> {
    let limits = u32::try_from(LIMITS).unwrap_or(u32::MAX);
    prop_oneof![
        Just(Match::None),
        (0..limits).prop_map(Match::Limit),
        (0..CANDIDATES).prop_map(Match::Candidates),
    ]
}

fn any_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        any::<u16>().prop_map(Selector::Tcp),
        any::<u16>().prop_map(Selector::Udp),
        any::<u8>().prop_map(Selector::Protocol),
        Just(Selector::Unknown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Masking twice is masking with the shorter prefix, and keeps the bits
    /// that it should.
    #[test]
    fn masks_nest(address in any_address(), a in 0..=128_u32, b in 0..=128_u32) {
        prop_assert_eq!(address.masked(a).masked(b), address.masked(a.min(b)));
        let bits = |it: Address| u128::from(it.hi) << 64 | u128::from(it.lo);
        let differing = bits(address) ^ bits(address.masked(a));
        prop_assert!(differing.leading_zeros() >= a || differing == 0);
    }

    /// A source key names the network of its prefix; martians aside, no two
    /// networks share one.
    #[test]
    fn a_source_key_is_its_network(
        a in any_address(),
        b in any_address(),
        v4 in 0..=32_u32,
        v6 in 16..=64_u32,
    ) {
        let prefix = |it: Address| match it.family {
            Family::Ipv4 => v4,
            Family::Ipv6 => v6,
        };
        prop_assume!(!a.is_martian() && !b.is_martian());
        let key = |it: Address| it.source(source_mask(prefix(it)));
        prop_assert_eq!(key(a).address(), a.masked(prefix(a)));
        let same = a.masked(prefix(a)) == b.masked(prefix(b));
        prop_assert_eq!(key(a) == key(b), same);
        let again: SourceKey = key(a).address().source(source_mask(prefix(a)));
        prop_assert_eq!(again, key(a));
    }

    #[test]
    fn a_block_key_is_its_network(address in any_address(), prefix in 0..=128_u32, limit in 0..257_u32) {
        let prefix = prefix.min(address.family.bits());
        let key = BlockKey::new(address, prefix, limit);
        prop_assert_eq!(key.network(), (address.masked(prefix), prefix));
        // The way the packet path makes it, and its bits in the filter.
        let same = Length::new(address.family, prefix).key(address, limit);
        prop_assert_eq!(same, key);
        let other = BlockKey { limit: 0, ..key };
        prop_assert_eq!(FilterBits::of_block(&key, 99), FilterBits::of_block(&other, 99));
    }

    /// No packet gets past a block because of the filter.
    #[test]
    fn the_filter_knows_every_address_of_a_block(
        address in any_address(),
        prefix in 0..=128_u32,
        host in any::<u128>(),
        seed in any::<u64>(),
    ) {
        let prefix = prefix.min(address.family.bits());
        let block = BlockKey::new(address, prefix, 0);
        let network = address.masked(prefix);
        let ones = Length::new(address.family, prefix);
        let whole = Length::new(address.family, address.family.bits());
        let inside = Address {
            family: address.family,
            hi: network.hi | (host >> 64) as u64 & whole.hi & !ones.hi,
            lo: network.lo | host as u64 & whole.lo & !ones.lo,
        };
        let asked = if is_wide(address.family, prefix) {
            FilterBits::of_wide(&ones.key(inside, 0), seed)
        } else {
            FilterBits::of_address(inside, seed)
        };
        let set = FilterBits::of_block(&block, seed);
        prop_assert_eq!(asked.word, set.word);
        prop_assert_eq!(asked.bits & set.bits, asked.bits);
        prop_assert!(asked.bits.is_power_of_two() && asked.word < FILTER_WORDS);
    }

    /// The trie compares bytes: a network's first bits are those of the
    /// addresses in it.
    #[test]
    fn a_network_key_starts_as_its_addresses_do(address in any_address(), prefix in 0..=128_u32) {
        let prefix = prefix.min(address.family.bits());
        let bits = |it: Address| u128::from_be_bytes(NetworkKey::new(1, Kind::Source, it).address);
        let differing = bits(address) ^ bits(address.masked(prefix));
        prop_assert!(differing.leading_zeros() >= prefix);
        prop_assert_eq!(NetworkKey::bits(prefix) - NetworkKey::TAG_BITS, prefix);
    }

    #[test]
    fn a_class_says_what_was_put_in(matches in any_match(), spared in any::<bool>()) {
        let class = Class::new(matches, spared);
        prop_assert_eq!((class.matches(), class.is_spared()), (matches, spared));
    }

    #[test]
    fn selectors_have_places_of_their_own(a in any_selector(), b in any_selector()) {
        prop_assert!(a.index() < CLASSES);
        prop_assert_eq!(a.index() == b.index(), a == b);
    }

    #[test]
    fn the_first_common_limit_is_the_first(a in any::<[u64; 4]>(), b in any::<[u64; 4]>(), thin in any::<[u64; 4]>()) {
        let a: [u64; 4] = std::array::from_fn(|i| a[i] & thin[i]);
        let has = |set: &[u64; 4], rank: u32| set[rank as usize / 64] >> (rank % 64) & 1 == 1;
        let expected = (0..256).find(|&rank| has(&a, rank) && has(&b, rank));
        prop_assert_eq!(first_common(&a, &b), expected);
    }

    #[test]
    fn an_outcome_is_its_action_and_reason(index in any::<u32>()) {
        match Outcome::from_index(index % 64) {
            Some(outcome) => {
                prop_assert_eq!(outcome.index(), index % 64);
                prop_assert_eq!(Outcome::new(outcome.action(), outcome.reason()), outcome);
            }
            None => prop_assert!(index % 64 >= Outcome::COUNT),
        }
    }

    #[test]
    fn a_charge_survives_its_word(c in 0..0x8000_u32, p in 0..0x8000_u32, b in 0..0x8000_0000_u32, lease in any::<bool>()) {
        let charge = Charge { cost: Tokens::new(c, p, b), lease };
        prop_assert_eq!(charge.cost.fields(), [c, p, b].map(u64::from));
        let again = Charge::from_word(charge.word());
        prop_assert_eq!((again.cost, again.lease), (charge.cost, lease));
    }
}

#[test]
fn words_for_actions_and_reasons_are_their_own() {
    let actions = [Action::Pass, Action::Drop, Action::WouldDrop].map(Action::name);
    assert_eq!(actions, ["pass", "drop", "would_drop"]);
    let mut words: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| format!("{} {:?}", reason.name(), reason.budget().name()))
        .collect();
    words.sort();
    words.dedup();
    assert_eq!(words.len(), Reason::ALL.len());
}
