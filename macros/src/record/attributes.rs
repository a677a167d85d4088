//! What `#[record(...)]` says.

use proc_macro2::{Ident, Span};
use syn::meta::ParseNestedMeta;
use syn::{DeriveInput, Error, Expr, LitStr, Result};

use super::format::{Format, all, needs_feature};

#[derive(Default)]
pub(super) struct Attributes {
    pub(super) format: Option<Format>,
    /// `registry`: the schema lies in a registry.
    pub(super) registry: Option<Span>,
    /// `schema = TEXT`: any expression.
    pub(super) schema: Option<Expr>,
    /// `schema_file = "path"`, from the folder of Cargo.toml.
    pub(super) schema_file: Option<LitStr>,
    /// `message = "shop.Order"`: which message of a `.proto` file.
    pub(super) message: Option<LitStr>,
    /// `topic = "confirmed"`.
    pub(super) topic: Option<Expr>,
    /// `key = field`.
    pub(super) key: Option<Ident>,
    /// `header = "type"`: the header that tells the variants of an enum apart.
    pub(super) header: Option<LitStr>,
}

impl Attributes {
    pub(super) fn read(input: &DeriveInput) -> Result<Self> {
        let mut attributes = Self::default();
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
            attribute.parse_nested_meta(|meta| attributes.take(&meta))?;
        }
        attributes.check()?;
        Ok(attributes)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let word = meta.path.get_ident().cloned().ok_or_else(|| meta.error(unknown()))?;
        if let Some(format) = Format::named(&word) {
            let format = format.map_err(|message| Error::new(word.span(), message))?;
            return match self.format.replace(format) {
                None => Ok(()),
                Some(_) => Err(meta.error("a type has one format; remove the others")),
            };
        }
        let twice = || Error::new(word.span(), format!("`{word}` is there twice"));
        let is_first = match word.to_string().as_str() {
            "registry" => {
                let is_on = cfg!(feature = "schema-registry");
                needs_feature("registry", "schema-registry", is_on)
                    .map_err(|message| Error::new(word.span(), message))?;
                self.registry.replace(word.span()).is_none()
            }
            "schema" => self.schema.replace(meta.value()?.parse()?).is_none(),
            "schema_file" => self.schema_file.replace(meta.value()?.parse()?).is_none(),
            "message" => self.message.replace(meta.value()?.parse()?).is_none(),
            "topic" => self.topic.replace(meta.value()?.parse()?).is_none(),
            "key" => self.key.replace(meta.value()?.parse()?).is_none(),
            "header" => self.header.replace(meta.value()?.parse()?).is_none(),
            _ => return Err(meta.error(unknown())),
        };
        if is_first { Ok(()) } else { Err(twice()) }
    }

    /// What does not go together.
    fn check(&self) -> Result<()> {
        let has_schema = self.format.is_some_and(|format| format.has_schema());
        let is = |word| self.format.is_some_and(|format| format.word == word);
        if let Some(span) = self.registry.filter(|_| !has_schema) {
            let message = "a registry keeps schemas, and this format has none: choose `avro`, `protobuf` or \
                           `json_schema`, or remove `registry`";
            return Err(Error::new(span, message));
        }
        if let (Some(span), Some(_)) = (self.registry, &self.header) {
            let message =
                "`registry` and `header` exclude one another: the id before each record tells its schema";
            return Err(Error::new(span, message));
        }
        let spans = [
            self.schema.as_ref().map(syn::spanned::Spanned::span),
            self.schema_file.as_ref().map(LitStr::span),
        ];
        match spans {
            [Some(_), Some(second)] => {
                return Err(Error::new(second, "`schema` and `schema_file` say the same; remove one"));
            }
            [Some(span), None] | [None, Some(span)] if !has_schema => {
                return Err(Error::new(span, "only `avro`, `protobuf` and `json_schema` have a schema"));
            }
            _ => {}
        }
        if let Some(message) = self.message.as_ref().filter(|_| !is("protobuf")) {
            return Err(Error::new(
                message.span(),
                "`message` names a message of a `.proto` file; only with `protobuf`",
            ));
        }
        if let Some(header) = self.header.as_ref().filter(|header| header.value().is_empty()) {
            return Err(Error::new(
                header.span(),
                "the header needs a name, as in `header = \"klamm-type\"`",
            ));
        }
        Ok(())
    }
}

fn unknown() -> String {
    format!(
        "unknown format or setting; formats are {}; settings are `topic`, `key`, `header`, `registry`, `schema`, \
         `schema_file` and `message`",
        all()
    )
}
