//! The one identity of a producer, and its epochs.

use crate::producer::lane::Identity;

/// Who the producer is now.
#[derive(Debug)]
pub(super) struct Identities {
    /// `None` without idempotence, where lanes do not ask.
    present: Option<Identity>,
    asking: bool,
    idempotent: bool,
}

impl Identities {
    pub(super) fn new(idempotent: bool) -> Self {
        Self { present: None, asking: false, idempotent }
    }

    pub(super) fn present(&self) -> Option<Identity> {
        self.present
    }

    /// Whether somebody must be asked for an identity: `true` once.
    pub(super) fn ask(&mut self) -> bool {
        self.idempotent && self.present.is_none() && !std::mem::replace(&mut self.asking, true)
    }

    /// What asking gave.
    pub(super) fn take(&mut self, identity: Option<Identity>) {
        self.asking = false;
        self.present = identity;
    }

    /// Goes on to the next epoch, which needs nobody's leave (KIP-360), or gives the id up, unless the rejected one is
    /// of the past already.
    pub(super) fn reject(&mut self, rejected: Identity, new_id: bool) {
        if self.present != Some(rejected) {
            return;
        }
        self.present = match rejected.epoch.checked_add(1) {
            Some(epoch) if !new_id => Some(Identity { epoch, ..rejected }),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_go_up_and_ids_are_asked_for_once() {
        let mut identities = Identities::new(true);
        assert!(identities.ask());
        assert!(!identities.ask(), "under way");
        let first = Identity { producer_id: 7, epoch: i16::MAX - 1 };
        identities.take(Some(first));
        assert!(!identities.ask());
        identities.reject(first, false);
        let last = Identity { epoch: i16::MAX, ..first };
        assert_eq!(identities.present(), Some(last));
        identities.reject(first, true);
        assert_eq!(identities.present(), Some(last), "that one is of the past");
        identities.reject(last, false);
        assert_eq!(identities.present(), None);
        assert!(identities.ask());
        identities.take(None);
        assert!(identities.ask(), "asked again by whoever comes next");
        identities.take(Some(first));
        identities.reject(first, true);
        assert_eq!(identities.present(), None);
        assert!(!Identities::new(false).ask());
    }
}
