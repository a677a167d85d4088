//! Numbers that instances of different builds, and of different days, have to come to alike.

/// FNV-1a, which stays what it is from version to version.
pub(super) fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The same of names in their order.
pub(super) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    // A zero between names: no name has one.
    fnv1a(names.flat_map(|name| name.bytes().chain([0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_changes_the_fingerprint_and_nothing_else_does() {
        let of = |names: &[&str]| of_names(names.iter().copied());
        assert_eq!(of(&["orders"]), of(&["orders"]));
        assert_eq!(of(&["orders"]), 0xDDC0_4B9F_33C6_B224, "it stays what it is");
        let different = [of(&[]), of(&["a"]), of(&["a", "b"]), of(&["ab"]), of(&["b", "a"])];
        for (place, one) in different.iter().enumerate() {
            assert!(!different[..place].contains(one));
        }
    }
}
