//! The prelude's derives of serde's traits write and read what serde's own do.

use std::collections::BTreeMap;
use std::fmt::Debug;

use klamm::serde::Json;
use klamm::serde::{JsonSerde, Serde};

/// The same types, once with each derives.
macro_rules! types {
    ($module:ident, $($derives:tt)*) => {
        mod $module {
            use std::collections::BTreeMap;
            use std::marker::PhantomData;

            $($derives)*

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            /// With more than serde's attributes.
            pub struct Plain {
                pub order_id: u64,
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub note: Option<String>,
                /// Of its own kind.
                #[serde(default)]
                pub parts: Vec<Self>,
                #[serde(rename = "total", alias = "sum")]
                pub cents: i64,
                #[serde(skip)]
                pub seen: bool,
            }

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct Wrapped(pub String);

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct Two(pub u8, pub Option<Wrapped>);

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct Nothing;

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(tag = "kind", rename_all = "snake_case")]
            pub enum Tagged {
                OrderPlaced { id: u64 },
                Other(BTreeMap<String, i64>),
                None,
            }

            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
            pub enum Bare {
                One,
                #[serde(rename = "2")]
                Two,
            }

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct Generic<T, const N: usize>
            where
                T: Clone,
            {
                pub inner: Vec<T>,
                #[serde(flatten)]
                pub more: BTreeMap<String, T>,
                #[serde(skip)]
                pub none: PhantomData<[(); N]>,
            }

            pub type GenericBytes = Generic<u8, 2>;

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct Borrowed<'a> {
                #[serde(borrow)]
                pub text: &'a str,
            }

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct Seen {
                pub inner: u32,
            }

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(try_from = "i64", into = "i64")]
            pub struct Even(i64);

            impl TryFrom<i64> for Even {
                type Error = String;

                fn try_from(number: i64) -> Result<Self, String> {
                    if number % 2 == 0 { Ok(Self(number)) } else { Err(format!("{number} is odd")) }
                }
            }

            impl From<Even> for i64 {
                fn from(even: Even) -> i64 {
                    even.0
                }
            }

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct r#Type {
                pub r#match: i8,
            }
        }
    };
}

types!(ours, use klamm::prelude::{Deserialize, Serialize};);
types!(theirs, use ::serde::{Deserialize, Serialize};);

/// What comes of a text when it is read as a type and written again.
fn again<T>(text: &str) -> Result<String, String>
where
    T: ::serde::Serialize + ::serde::de::DeserializeOwned + Debug,
{
    let value: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(format!("{value:?} {}", serde_json::to_string(&value).unwrap()))
}

#[test]
fn they_write_and_read_what_serdes_own_do() {
    macro_rules! compare {
        ($($type:ident: $($text:literal),*;)*) => {$($(
            let (of_ours, of_theirs) = (again::<ours::$type>($text), again::<theirs::$type>($text));
            assert_eq!(of_ours, of_theirs, "{} from {}", stringify!($type), $text);
        )*)*};
    }
    compare! {
        Plain: r#"{"orderId":1,"total":5}"#,
            r#"{"orderId":1,"sum":5,"note":"n","parts":[{"orderId":2,"total":0}]}"#,
            r#"{"orderId":1,"total":5,"seen":true}"#, r#"{"orderId":"x"}"#, r#"[1]"#, r#"7"#;
        Wrapped: r#""w""#, r#"7"#;
        Two: r#"[1,null]"#, r#"[1,"w"]"#, r#"[1]"#, r#"{}"#;
        Nothing: r#"null"#, r#"1"#;
        Tagged: r#"{"kind":"order_placed","id":3}"#, r#"{"kind":"other","a":1}"#, r#"{"kind":"none"}"#,
            r#"{"kind":"new"}"#, r#"{}"#;
        Bare: r#""One""#, r#""2""#, r#""Three""#;
        GenericBytes: r#"{"inner":[1],"a":2}"#, r#"{"inner":["x"]}"#, r#"{}"#;
        Seen: r#"4"#, r#"{"inner":4}"#;
        Even: r#"4"#, r#"5"#;
        Type: r#"{"match":1}"#, r#"{}"#, r#"[]"#, r#"7"#;
    }
    let text = r#"{"text":"a"}"#;
    let of_theirs = serde_json::from_str::<theirs::Borrowed<'_>>(text).unwrap();
    assert_eq!(serde_json::from_str::<ours::Borrowed<'_>>(text).unwrap().text, of_theirs.text);
    assert_eq!(serde_json::to_string(&ours::Borrowed { text: "a" }).unwrap(), text);
}

#[test]
fn they_do_for_records() {
    let wrapped = Json(ours::Wrapped("w".into()));
    let bytes = JsonSerde.serialize("t", &wrapped.0).unwrap();
    let read: ours::Wrapped = JsonSerde.deserialize("t", &bytes).unwrap();
    assert_eq!((read, BTreeMap::from([(ours::Bare::One, 1)]).len()), (wrapped.0, 1));
}
