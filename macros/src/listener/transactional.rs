//! `transactional`, and how: several records in one transaction, and what names of transactions begin with.

use darling::ast::NestedMeta;
use darling::{Error as DarlingError, FromMeta};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Expr, Meta};

use super::values::{AnyExpr, Errors, duration, is_zero};

/// `transactional`, or `transactional(max = 100, within = "50ms", id_prefix = "eu-")`.
#[derive(Debug)]
pub(super) struct WrittenTransactional {
    list: List,
    span: Span,
}

#[derive(Debug, Default, FromMeta)]
struct List {
    #[darling(default)]
    max: Option<AnyExpr>,
    #[darling(default)]
    within: Option<AnyExpr>,
    #[darling(default)]
    id_prefix: Option<AnyExpr>,
}

/// As checked.
pub(super) struct Transactional {
    pub(super) span: Span,
    /// So many records share a transaction, which takes them for so long.
    pub(super) shared: Option<(Expr, TokenStream)>,
    pub(super) id_prefix: Option<Expr>,
}

impl FromMeta for WrittenTransactional {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        let span = meta.span();
        match meta {
            Meta::Path(_) => Ok(Self { list: List::default(), span }),
            Meta::List(list) => {
                let metas = NestedMeta::parse_meta_list(list.tokens.clone())?;
                Ok(Self { list: List::from_list(&metas)?, span })
            }
            Meta::NameValue(_) => {
                let said = "write `transactional`, or `transactional(max = 100, within = \"50ms\")` for several \
                            records in one transaction";
                Err(DarlingError::custom(said).with_span(&span))
            }
        }
    }
}

impl WrittenTransactional {
    pub(super) fn check(self, errors: &mut Errors) -> Transactional {
        let Self { list: List { max, within, id_prefix }, span } = self;
        let shared = match (max, within) {
            (Some(max), Some(within)) => {
                if is_zero(&max.0) {
                    errors.push(
                        max.0.span(),
                        "transactions shared by 0 records would never be begun; the least is 1",
                    );
                }
                duration(&within.0, errors).map(|within| (max.0, within))
            }
            (Some(one), None) => {
                let said = "records that share a transaction need a bound in time, too: `max = 100, within = \
                            \"50ms\"`";
                errors.push(one.0.span(), said);
                None
            }
            (None, Some(one)) => {
                let said = "records that share a transaction need a bound in number, too: `max = 100, within = \
                            \"50ms\"`";
                errors.push(one.0.span(), said);
                None
            }
            (None, None) => None,
        };
        Transactional { span, shared, id_prefix: id_prefix.map(|prefix| prefix.0) }
    }
}

impl Transactional {
    /// The builder's calls.
    pub(super) fn calls(&self) -> TokenStream {
        let shared = self.shared.as_ref().map(|(max, within)| quote!(.shared_transactions(#max, #within)));
        let id_prefix = self.id_prefix.as_ref().map(|prefix| quote!(.transactional_id_prefix(#prefix)));
        quote!(.transactional() #shared #id_prefix)
    }
}
