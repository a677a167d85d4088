//! Reads the struct and its attributes, and says precisely what is wrong with them.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, ExprUnary, Fields, Ident, Lit, RangeLimits, Result,
    Type, UnOp,
};

/// A struct that stands in a message.
#[derive(Debug)]
pub(crate) struct Structure {
    pub(crate) name: Ident,
    /// What makes it a whole request or response.
    pub(crate) message: Option<MessageArgs>,
    /// In order of declaration, which is the order on the wire; without `unknown_tags`.
    pub(crate) fields: Vec<FieldDef>,
}

/// `#[message(..)]`
#[derive(Debug)]
pub(crate) struct MessageArgs {
    pub(crate) versions: Versions,
    pub(crate) flexible_from: Option<i16>,
    /// API key and type of the response.
    pub(crate) request: Option<(i16, Ident)>,
}

#[derive(Debug)]
pub(crate) struct FieldDef {
    pub(crate) name: Ident,
    /// The type, without `Option`.
    pub(crate) ty: Type,
    pub(crate) is_option: bool,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) default: DefaultValue,
    pub(crate) ignorable: bool,
}

#[derive(Debug)]
pub(crate) enum DefaultValue {
    OfType,
    /// `Some(Default::default())`
    Empty,
    Expr(Box<Expr>),
}

/// A range of versions; a missing end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Versions {
    pub(crate) first: Option<i16>,
    pub(crate) last: Option<i16>,
}

impl Versions {
    pub(crate) fn is_all(self) -> bool {
        self == Self::default()
    }
}

impl Structure {
    pub(crate) fn read(input: &DeriveInput) -> Result<Self> {
        let Data::Struct(data) = &input.data else {
            return Err(Error::new(input.ident.span(), "a message is a struct with named fields"));
        };
        let Fields::Named(named) = &data.fields else {
            return Err(Error::new(input.ident.span(), "a message is a struct with named fields"));
        };
        if !input.generics.params.is_empty() {
            return Err(Error::new(input.generics.span(), "a message has no generic parameters"));
        }
        let message = match input.attrs.iter().find(|attr| attr.path().is_ident("message")) {
            Some(attr) => Some(MessageArgs::read(attr, &input.ident)?),
            None => None,
        };
        let mut fields = Vec::new();
        let mut has_unknown_tags = false;
        for field in &named.named {
            let name =
                field.ident.clone().ok_or_else(|| Error::new(field.span(), "a message has named fields"))?;
            if name == "unknown_tags" {
                has_unknown_tags = true;
            } else {
                fields.push(FieldDef::read(name, &field.ty, &field.attrs)?);
            }
        }
        if !has_unknown_tags {
            let text = "missing field: add `pub unknown_tags: UnknownTags`, which keeps the tagged fields that this \
             struct does not define";
            return Err(Error::new(input.ident.span(), text));
        }
        for (index, field) in fields.iter().enumerate() {
            let twice = fields[..index].iter().any(|other| other.tag.is_some() && other.tag == field.tag);
            if twice {
                return Err(Error::new(field.name.span(), "another field has the same tag"));
            }
            let outside = message.as_ref().is_some_and(|message| !message.versions_cover(field.versions));
            if outside {
                return Err(Error::new(field.name.span(), "no version of the message has this field"));
            }
        }
        Ok(Self { name: input.ident.clone(), message, fields })
    }
}

impl MessageArgs {
    fn read(attr: &Attribute, name: &Ident) -> Result<Self> {
        let mut versions = None;
        let mut flexible = None;
        let mut key = None;
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("versions") {
                let range = read_versions(&meta)?;
                if range.first.is_none() || range.last.is_none() {
                    return Err(meta.error("the versions of a message have two ends: `versions = 3..=13`"));
                }
                versions = Some(range);
            } else if meta.path.is_ident("flexible") {
                let range = read_versions(&meta)?;
                if range.first.is_none() || range.last.is_some() {
                    return Err(meta.error("flexible versions go on forever: `flexible = 9..`"));
                }
                flexible = range.first;
            } else if meta.path.is_ident("key") {
                let value: Expr = meta.value()?.parse()?;
                key = Some((read_i16(&value)?, value.span()));
            } else {
                return Err(meta
                    .error("unknown option; there are `key = 0`, `versions = 3..=13` and `flexible = 9..`"));
            }
            Ok(())
        })?;
        let versions = versions.ok_or_else(|| Error::new(attr.span(), "missing `versions = 3..=13`"))?;
        let request = match key {
            Some((key, span)) => Some((key, response_of(name, span)?)),
            None => None,
        };
        Ok(Self { versions, flexible_from: flexible, request })
    }

    /// Whether at least one version of the message is in the range.
    fn versions_cover(&self, range: Versions) -> bool {
        let after_start = range.last.is_none_or(|last| self.versions.first.is_none_or(|first| last >= first));
        let before_end = range.first.is_none_or(|first| self.versions.last.is_none_or(|last| first <= last));
        after_start && before_end
    }
}

impl FieldDef {
    fn read(name: Ident, ty: &Type, attrs: &[Attribute]) -> Result<Self> {
        let inner = option_content(ty);
        let mut field = Self {
            name,
            ty: inner.unwrap_or(ty).clone(),
            is_option: inner.is_some(),
            versions: Versions::default(),
            nullable: Versions::default(),
            tag: None,
            default: DefaultValue::OfType,
            ignorable: false,
        };
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("field")) {
            attr.parse_nested_meta(|meta| field.read_option(&meta))?;
        }
        if field.ignorable && field.versions.is_all() {
            let text =
                "`ignorable` says what happens in versions without the field, but all versions have it";
            return Err(Error::new(field.name.span(), text));
        }
        Ok(field)
    }

    fn read_option(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("versions") {
            self.versions = read_versions(meta)?;
        } else if meta.path.is_ident("nullable") {
            if !self.is_option {
                return Err(meta.error("a nullable field has a type `Option<_>`"));
            }
            self.nullable = read_versions(meta)?;
        } else if meta.path.is_ident("tag") {
            let value: Expr = meta.value()?.parse()?;
            self.tag = Some(
                read_i16(&value)?
                    .try_into()
                    .map_err(|_| Error::new(value.span(), "a tag is not negative"))?,
            );
        } else if meta.path.is_ident("default") {
            let value: Expr = meta.value()?.parse()?;
            let is_empty = matches!(&value, Expr::Path(path) if path.path.is_ident("empty"));
            if is_empty && !self.is_option {
                return Err(Error::new(
                    value.span(),
                    "`empty` is a default for `Option<_>`; other types are empty anyway",
                ));
            }
            self.default = if is_empty { DefaultValue::Empty } else { DefaultValue::Expr(Box::new(value)) };
        } else if meta.path.is_ident("ignorable") {
            self.ignorable = true;
        } else {
            let text = "unknown option; there are `versions`, `nullable`, `default`, `ignorable` and `tag`";
            return Err(meta.error(text));
        }
        Ok(())
    }
}

/// `FetchRequest` is answered by `FetchResponse`.
fn response_of(request: &Ident, key: Span) -> Result<Ident> {
    match request.to_string().strip_suffix("Request") {
        Some(api) => Ok(Ident::new(&format!("{api}Response"), request.span())),
        None => Err(Error::new(
            key,
            "only a struct named `..Request` has a key; its answer is named `..Response`",
        )),
    }
}

/// The `T` of `Option<T>`.
fn option_content(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if last.ident != "Option" {
        return None;
    }
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        syn::GenericArgument::Type(inner) => Some(inner),
        _ => None,
    }
}

fn read_versions(meta: &ParseNestedMeta<'_>) -> Result<Versions> {
    let value: Expr = meta.value()?.parse()?;
    let wrong =
        || Error::new(value.span(), "write versions as `3..`, `..=12`, `3..=12` or, for one of them, `3`");
    let Expr::Range(range) = &value else {
        let only = read_i16(&value).map_err(|_| wrong())?;
        return Ok(Versions { first: Some(only), last: Some(only) });
    };
    let first = range.start.as_deref().map(read_i16).transpose().map_err(|_| wrong())?;
    let last = range.end.as_deref().map(read_i16).transpose().map_err(|_| wrong())?;
    if last.is_some() && matches!(range.limits, RangeLimits::HalfOpen(_)) {
        return Err(wrong());
    }
    if first.zip(last).is_some_and(|(first, last)| first > last) {
        return Err(Error::new(value.span(), "the first version is above the last"));
    }
    Ok(Versions { first, last })
}

fn read_i16(value: &Expr) -> Result<i16> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(int), .. }) => int.base10_parse(),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => read_i16(expr).map(|positive| -positive),
        _ => Err(Error::new(value.span(), "expected a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(source: &str, expected: &str) {
        let input = syn::parse_str(source).unwrap();
        let error = Structure::read(&input).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn errors_say_how_to_write_it() {
        refused("struct A { x: i32 }", "add `pub unknown_tags: UnknownTags`");
        refused("enum A {}", "a struct with named fields");
        refused("struct A(i32);", "a struct with named fields");
        refused("struct A<T> { x: T, unknown_tags: U }", "no generic parameters");
        refused("#[message(flexible = 9..)] struct A { unknown_tags: U }", "missing `versions = 3..=13`");
        refused("#[message(versions = 3..)] struct A { unknown_tags: U }", "two ends");
        refused(
            "#[message(versions = 3..=4, flexible = 9..=10)] struct A { unknown_tags: U }",
            "`flexible = 9..`",
        );
        refused("#[message(key = 0, versions = 3..=4)] struct A { unknown_tags: U }", "named `..Request`");
        refused("#[message(kye = 0)] struct A { unknown_tags: U }", "unknown option");
        refused("struct A { #[field(versions = 3..5)] x: i32, unknown_tags: U }", "write versions as");
        refused("struct A { #[field(versions = 5..=3)] x: i32, unknown_tags: U }", "above the last");
        refused("struct A { #[field(nullable = 3..)] x: i32, unknown_tags: U }", "`Option<_>`");
        refused("struct A { #[field(default = empty)] x: i32, unknown_tags: U }", "default for `Option<_>`");
        refused("struct A { #[field(ignorable)] x: i32, unknown_tags: U }", "all versions have it");
        refused(
            "struct A { #[field(tag = 1)] x: i32, #[field(tag = 1)] y: i32, unknown_tags: U }",
            "same tag",
        );
        refused(
            "#[message(versions = 3..=4)] struct A { #[field(versions = 7..)] x: i32, unknown_tags: U }",
            "no version",
        );
    }
}
