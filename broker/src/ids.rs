//! Ids that nobody chose: of topics, clusters, directories and members. Made here and nowhere else.

use klamm_protocol::Uuid;
use klamm_runtime::Rng;

/// A random id. Never one that Kafka keeps for itself: 0, 1, and those that look like a command-line flag in base64.
pub(crate) fn fresh_uuid(rng: &dyn Rng) -> Uuid {
    loop {
        let id = Uuid::from_random(rng.next_u128());
        if !is_reserved(id) {
            return id;
        }
    }
}

fn is_reserved(id: Uuid) -> bool {
    id.is_zero() || id == Uuid::from_u128(1) || id.to_string().starts_with('-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_runtime::SeededRng;

    use super::*;

    #[test]
    fn ids_are_random_and_none_is_reserved() {
        let rng = SeededRng::new(1);
        let ids: BTreeSet<Uuid> = (0..1_000).map(|_| fresh_uuid(&rng)).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| !id.to_string().starts_with('-')));
        // In base64, 62 is the dash.
        assert!(is_reserved(Uuid::from_u128(62 << 122)) && !is_reserved(Uuid::from_u128(61 << 122)));
        assert!(
            is_reserved(Uuid::ZERO) && is_reserved(Uuid::from_u128(1)) && !is_reserved(Uuid::from_u128(2))
        );
    }
}
