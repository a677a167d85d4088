//! Attributes that are the builder's methods of the same names.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;

use super::values::{AnyExpr, Choice, Errors, duration, is_zero};

/// What goes to the builder as it is written.
pub(super) struct Plain {
    pub(super) offset_reset: Option<Choice>,
    pub(super) commit_on_assign: Option<Choice>,
    pub(super) max_in_flight: Option<AnyExpr>,
    pub(super) max_in_flight_bytes: Option<AnyExpr>,
    pub(super) revoke_deadline: Option<AnyExpr>,
    pub(super) idle_after: Option<AnyExpr>,
    pub(super) slow_after: Option<AnyExpr>,
    pub(super) intercept: Option<AnyExpr>,
    pub(super) auto_start: Option<AnyExpr>,
    pub(super) container_group: Option<AnyExpr>,
    pub(super) restart: Option<AnyExpr>,
    pub(super) isolation: Option<Choice>,
    pub(super) transaction_timeout: Option<AnyExpr>,
}

impl Plain {
    pub(super) fn check(self, errors: &mut Errors) -> Vec<(&'static str, TokenStream)> {
        let resets = [
            ("earliest", quote!(::klamm::client::OffsetReset::Earliest)),
            ("latest", quote!(::klamm::client::OffsetReset::Latest)),
            ("none", quote!(::klamm::client::OffsetReset::None)),
        ];
        let on_assign = [
            ("latest_only", quote!(::klamm::listener::CommitOnAssign::LatestOnly)),
            ("always", quote!(::klamm::listener::CommitOnAssign::Always)),
            ("never", quote!(::klamm::listener::CommitOnAssign::Never)),
        ];
        let isolations = [
            ("read_committed", quote!(::klamm::client::IsolationLevel::ReadCommitted)),
            ("read_uncommitted", quote!(::klamm::client::IsolationLevel::ReadUncommitted)),
        ];
        let offset_reset = self.offset_reset.and_then(|word| word.check("offset reset", &resets, errors));
        let commit_on_assign =
            self.commit_on_assign.and_then(|word| word.check("policy", &on_assign, errors));
        let records = counted("max_in_flight", self.max_in_flight, errors);
        let bytes = counted("max_in_flight_bytes", self.max_in_flight_bytes, errors);
        let isolation = self.isolation.and_then(|word| word.check("isolation level", &isolations, errors));
        let mut lasting = |text: Option<AnyExpr>| text.and_then(|text| duration(&text.0, errors));
        let deadline = lasting(self.revoke_deadline);
        let (idle_after, slow_after) = (lasting(self.idle_after), lasting(self.slow_after));
        let timeout = lasting(self.transaction_timeout);
        let as_written = |written: Option<AnyExpr>| written.map(|AnyExpr(expr)| quote!(#expr));
        let intercept = as_written(self.intercept);
        let (auto_start, restart) = (as_written(self.auto_start), as_written(self.restart));
        let container_group = as_written(self.container_group);
        let calls = [
            ("intercept", intercept),
            ("offset_reset", offset_reset),
            ("commit_on_assign", commit_on_assign),
            ("max_in_flight", records),
            ("max_in_flight_bytes", bytes),
            ("revoke_deadline", deadline),
            ("isolation", isolation),
            ("transaction_timeout", timeout),
            ("idle_after", idle_after),
            ("slow_after", slow_after),
            ("auto_start", auto_start),
            ("container_group", container_group),
            ("restart", restart),
        ];
        calls.into_iter().filter_map(|(name, argument)| Some((name, argument?))).collect()
    }
}

fn counted(name: &str, written: Option<AnyExpr>, errors: &mut Errors) -> Option<TokenStream> {
    let expr = written?.0;
    if is_zero(&expr) {
        errors.push(expr.span(), &format!("`{name} = 0` would never handle anything; the least is 1"));
        return None;
    }
    Some(quote!(#expr))
}
