//! The formats that `#[record(...)]` can name.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote_spanned;

/// A format that was named, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) word: &'static str,
    serde: &'static str,
    pub(super) span: Span,
}

/// Word, the serde that writes it, klamm's feature, whether klamm has it.
const FORMATS: [(&str, &str, &str, bool); 7] = [
    ("json", "JsonSerde", "json", cfg!(feature = "json")),
    ("bincode", "BincodeSerde", "bincode", cfg!(feature = "bincode")),
    ("postcard", "PostcardSerde", "postcard", cfg!(feature = "postcard")),
    ("msgpack", "MsgpackSerde", "msgpack", cfg!(feature = "msgpack")),
    ("avro", "AvroSerde", "avro", cfg!(feature = "avro")),
    ("protobuf", "ProtobufSerde", "protobuf", cfg!(feature = "protobuf")),
    ("json_schema", "JsonSchemaSerde", "json-schema", cfg!(feature = "json-schema")),
];

impl Format {
    /// The format of this name; `None` where the word is no format.
    ///
    /// # Errors
    /// What to do where klamm was compiled without it.
    pub(super) fn named(word: &Ident) -> Option<Result<Self, String>> {
        let span = word.span();
        let (word, serde, feature, is_on) = *FORMATS.iter().find(|(name, ..)| word == name)?;
        Some(needs_feature(word, feature, is_on).map(|()| Self { word, serde, span }))
    }

    pub(super) fn serde(&self) -> TokenStream {
        let (serde, span) = (Ident::new(self.serde, self.span), self.span);
        quote_spanned!(span=> ::klamm::serde::#serde)
    }

    /// Whether the type has one schema, which a registry can keep.
    pub(super) fn has_schema(&self) -> bool {
        matches!(self.word, "avro" | "protobuf" | "json_schema")
    }
}

/// What to do where klamm was compiled without a feature.
pub(super) fn needs_feature(word: &str, feature: &str, is_on: bool) -> Result<(), String> {
    match is_on {
        true => Ok(()),
        false => Err(format!(
            "`{word}` needs klamm's feature `{feature}`, which is off: `cargo add klamm --features {feature}`"
        )),
    }
}

/// `json`, `bincode`, ... and so on, for messages.
pub(super) fn all() -> String {
    let words: Vec<_> = FORMATS.iter().map(|(word, ..)| format!("`{word}`")).collect();
    words.join(", ")
}

pub(super) fn all_as_attributes() -> String {
    let words: Vec<_> = FORMATS.iter().map(|(word, ..)| format!("`#[record({word})]`")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_is_not_compiled_in_names_the_feature() {
        let refused = needs_feature("json_schema", "json-schema", false).unwrap_err();
        assert_eq!(
            refused,
            "`json_schema` needs klamm's feature `json-schema`, which is off: `cargo add klamm --features json-schema`"
        );
        assert_eq!(needs_feature("json", "json", true), Ok(()));
    }

    #[test]
    fn other_words_are_no_formats() {
        assert!(Format::named(&Ident::new("xml", Span::call_site())).is_none());
        assert!(Format::named(&Ident::new("avro", Span::call_site())).is_some());
    }
}
