//! The prelude's derives of serde: they take what serde's own take, and mean the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use klamm::prelude::*;
use serde::de::DeserializeOwned;

/// The text that a value is, and the value that the text is.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, text: &str) {
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    assert_eq!(serde_json::from_str::<T>(text).unwrap(), value);
}

struct NoSerde;

#[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    name: String,
    retries: u8,
}

#[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Tree<T: Clone> {
    of: Option<T>,
    below: Option<Box<Tree<T>>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Page<T> {
    #[serde(default)]
    items: Vec<T>,
    next: Option<String>,
}

/// A value that is left out is made by default, which `NoSerde` need not be.
#[derive(Serialize, Deserialize)]
struct Id<T> {
    id: u64,
    of: PhantomData<T>,
    #[serde(skip)]
    left_out: PhantomData<T>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept<T> {
    id: u8,
    #[serde(skip)]
    cache: T,
}

trait Kind {
    type Item;
}

impl Kind for NoSerde {
    type Item = u8;
}

#[derive(Serialize, Deserialize)]
struct Associated<K: Kind> {
    item: K::Item,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[repr(u8)]
enum Numbered {
    Tuple(u8) = 3,
    Named { x: u8 } = 7,
    Unit = 200,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Functions<T: PartialEq + Default> {
    #[serde(default = "Self::of_nothing", skip_serializing_if = "Self::is_nothing")]
    n: T,
}

impl<T: PartialEq + Default> Functions<T> {
    fn of_nothing() -> T {
        T::default()
    }

    fn is_nothing(n: &T) -> bool {
        *n == T::default()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Borrowed<'a, 'b: 'a, T: Clone + 'a>
where
    T: Send,
{
    #[serde(borrow)]
    name: Cow<'a, str>,
    plain: &'b str,
    all: Vec<T>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum r#Shape {
    FirstUnit,
    New(Settings),
    #[serde(rename_all = "UPPERCASE")]
    Struct {
        r#match: Option<Box<Self>>,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Text(String),
    #[serde(skip)]
    #[allow(dead_code)]
    Never,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Settings,
    #[cfg(any())]
    nothing: NoSerde,
    #[cfg_attr(all(), serde(rename = "y"))]
    x: u8,
}

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Email(String);

impl TryFrom<String> for Email {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, &'static str> {
        if text.contains('@') { Ok(Self(text)) } else { Err("no address") }
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

/// Names that hide what derives usually mean.
#[allow(dead_code, non_camel_case_types)]
mod hiding {
    use ::klamm::prelude::*;

    type Result = ();
    struct Option;
    struct String;
    struct Vec;
    struct Box;
    struct Rejection;
    mod klamm {}
    mod core {}
    mod serde {}

    #[derive(Serialize, Deserialize, Record)]
    #[record(json, key = r#type)]
    pub(super) struct Hidden {
        pub(super) r#type: std::string::String,
        pub(super) note: std::option::Option<u8>,
    }

    #[derive(Headers)]
    pub(super) struct Trace {
        headers: std::string::String,
    }
}

#[derive(Serialize, Deserialize, Record)]
#[record(json)]
struct Envelope<T>
where
    T: Send,
{
    #[serde(default)]
    body: T,
}

#[test]
fn defaults_of_the_whole_are_those_of_the_type() {
    is(Settings { name: "a".into(), retries: 2 }, r#"{"name":"a","retries":2}"#);
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    assert!(serde_json::from_str::<Settings>(r#"{"other":1}"#).is_err());
    let tree = Tree { of: Some(1), below: Some(Box::new(Tree { of: Some(2), below: None })) };
    is(tree, r#"{"of":1,"below":{"of":2,"below":null}}"#);
    assert_eq!(serde_json::from_str::<Tree<u8>>("{}").unwrap(), Tree::default());
}

#[test]
fn parameters_are_bound_as_serde_binds_them() {
    is(Page { items: vec![1], next: None }, r#"{"items":[1],"next":null}"#);
    assert!(serde_json::from_str::<Page<u8>>("{}").unwrap().items.is_empty());
    let id: Id<NoSerde> = serde_json::from_str(r#"{"id":7,"of":null}"#).unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), r#"{"id":7,"of":null}"#);
    is(Kept { id: 1, cache: () }, r#"{"id":1}"#);
    let associated: Associated<NoSerde> = serde_json::from_str(r#"{"item":1}"#).unwrap();
    assert_eq!(associated.item, 1);
    is(Functions { n: 1 }, r#"{"n":1}"#);
    is(Functions { n: 0 }, "{}");
    let text = r#"{"name":"a","plain":"b","all":[1]}"#;
    let borrowed: Borrowed<'_, '_, u8> = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&borrowed).unwrap(), text);
    assert_eq!(serde_json::from_str::<Envelope<u8>>("{}").unwrap().body, 0);
}

#[test]
fn every_shape_is_one() {
    is(Numbered::Tuple(1), r#"{"Tuple":1}"#);
    is(Numbered::Named { x: 1 }, r#"{"Named":{"x":1}}"#);
    is(Numbered::Unit, r#""Unit""#);
    is(
        Shape::Struct { r#match: Some(Box::new(Shape::FirstUnit)) },
        r#"{"type":"struct","MATCH":{"type":"firstUnit"}}"#,
    );
    is(Shape::New(Settings::default()), r#"{"type":"new","name":"","retries":0}"#);
    is(vec![Untagged::Number(1), Untagged::Text("a".into())], r#"[1,"a"]"#);
    is(Flat { inner: Settings::default(), x: 1 }, r#"{"name":"","retries":0,"y":1}"#);
    is(BTreeMap::from([(1, Email("a@b".into()))]), r#"{"1":"a@b"}"#);
    assert!(serde_json::from_str::<Email>(r#""a""#).unwrap_err().to_string().contains("no address"));
    let hidden: hiding::Hidden = serde_json::from_str(r#"{"type":"a","note":1}"#).unwrap();
    assert_eq!((hidden.r#type.as_str(), hidden.note), ("a", Some(1)));
}
