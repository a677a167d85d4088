//! A template of the app as an argument.

use super::states::States;
use super::{BatchDelivery, Delivery, FromBatch, FromRecord, Needs, Rejection};
use crate::template::{Template, Tx};

/// One that the app declares with [`App::template`](crate::App::template). In a transactional listener it sends
/// [within](Template::within) the transaction of the delivery.
impl<K: 'static, V: 'static> FromRecord for Template<K, V> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        declared(&delivery.scope.states, delivery.tx)
    }

    fn needs(needs: &mut Needs) {
        needs.template::<K, V>();
    }
}

impl<K: 'static, V: 'static> FromBatch for Template<K, V> {
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection> {
        declared(&delivery.scope.states, delivery.tx)
    }

    fn needs(needs: &mut Needs) {
        needs.template::<K, V>();
    }
}

fn declared<K: 'static, V: 'static>(states: &States, tx: Option<&Tx>) -> Result<Template<K, V>, Rejection> {
    let template: Template<K, V> =
        states.get().ok_or(Rejection::NoTemplate { type_name: std::any::type_name::<Template<K, V>>() })?;
    Ok(match tx {
        Some(tx) => template.within(tx),
        None => template,
    })
}
