//! The macros of klamm: comfort over the builders of the crate `klamm`, which re-exports them.
//! Everything works without them.

use proc_macro::TokenStream;

mod headers;
mod listener;
mod record;
mod schemas;
mod serde_derives;
mod test;

/// Makes an async function a listener.
///
/// The function stays a plain function that can be called. Its arguments are extractors; see `klamm::listener`. An app
/// takes it by name, `App::listener(bill)`, or with all others, `App::discover()`.
///
/// Topics, pattern, group and id may have placeholders, `"${orders.topic:orders}"`; see `App::property`.
///
/// | Attribute | Meaning | Default |
/// |---|---|---|
/// | `topics = "a"`, `topics = ["a", "b"]` | the topics; any expression will do | this or `pattern` |
/// | `pattern = "clicks-.*"` | every topic whose whole name matches | |
/// | `group = "billing"` | the consumer group | required |
/// | `id = "bill"` | the name in logs and for `AppHandle::listener` | the function's name |
/// | `partitions = [Partitions::all("prices")]` | partitions that it names, instead of topics; `group` is optional | |
/// | `concurrency = 4` | handler calls at once | 16 |
/// | `ack = record`, `batch`, `manual`, or an `AckPolicy` | when offsets are committed | `batch` |
/// | `dispatch = by_partition`, `by_key`, `unordered` | which records wait for one another | `by_partition` |
/// | `batch`, `batch(max = 500, wait = "50ms")` | for a function that takes a `Batch<T>` first | |
/// | `batch(.., across_partitions)` | one batch may hold records of several partitions | of one |
/// | `on_failure = patient` | a function or an expression that makes a `FailurePolicy` | `FailurePolicy::default()` |
/// | `send_to = "quotes"` | the topic of a function's `Reply<T>` | the one that the request names |
/// | `offset_reset = earliest`, `latest`, `none`, an `OffsetReset` | where a new group begins | `earliest` |
/// | `commit_on_assign = latest_only`, `always`, `never` | whether that place is committed at once | `latest_only` |
/// | `max_in_flight = 10_000`, `max_in_flight_bytes = 1 << 24` | what is in hand at most | as here |
/// | `intercept = OfTenant("a")` | a `ListenInterceptor` | none but the app's |
/// | `isolation = read_committed`, `read_uncommitted` | which records of transactions it sees | `read_committed` |
/// | `transactional` | what is sent with a `Tx`, the reply and the offset are committed together | not |
/// | `transactional(max = 100, within = "50ms")` | records that wait share a transaction | each its own |
/// | `transactional(id_prefix = "eu-")` | what transactional ids begin with | the group |
/// | `transaction_timeout = "60s"` | how long that may take | 60 s |
/// | `revoke_deadline = "10s"` | how long handlers may finish when their partition goes | 10 s |
/// | `idle_after = "5m"` | when it counts as idle, and tells so as an event | never |
/// | `slow_after = "30s"` | when a call of the handler is told of as slow | 30 s |
/// | `auto_start = false` | whether it starts with its app | `true` |
/// | `container_group = "tables"` | the group that it is started and stopped with | none |
/// | `restart = Backoff::fixed(..)` | whether and when it is started again after it ended by itself | it is not |
///
/// Each is the method of the same name of `klamm::ListenerBuilder`, which says more.
#[proc_macro_attribute]
pub fn kafka_listener(attributes: TokenStream, function: TokenStream) -> TokenStream {
    listener::expand(attributes.into(), function.into()).into()
}

/// An async test with a `TestKit`: an in-process broker on an in-memory network and disk, tokio's clock paused, a
/// deadline, and nothing left behind.
///
/// `deadline = "2h"` sets the deadline in the test's own time (default one hour); `needs_paused_clock` skips the test,
/// with a word, where `KLAMM_TEST` names a real cluster.
#[proc_macro_attribute]
pub fn test(attributes: TokenStream, function: TokenStream) -> TokenStream {
    let function = syn::parse_macro_input!(function as syn::ItemFn);
    test::expand(attributes.into(), &function).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Teaches a type how it is written to records: `#[derive(Record)] #[record(json)]`.
///
/// The type then works wherever a `klamm::serde::DefaultSerde` is asked for, in templates and in streams, and is an
/// argument of listeners by itself: `async fn bill(order: Order)`, also `Option<Order>` where there are tombstones,
/// `Result<Order, Rejection>` and `Batch<Order>`.
///
/// | Format | Needs | Feature |
/// |---|---|---|
/// | `json`, `bincode`, `postcard`, `msgpack` | serde's `Serialize` and `Deserialize` | of the same name |
/// | `avro` | those, and a schema: `AvroSchema`, `schema = TEXT` or `schema_file = "order.avsc"` | `avro` |
/// | `protobuf` | `prost::Message` | `protobuf` |
/// | `json_schema` | serde's, and a schema: `JsonSchema`, `schema = TEXT` or `schema_file` | `json-schema` |
///
/// | Setting | Meaning |
/// |---|---|
/// | `registry` | the schema lies in a schema registry, and its id before each value (Confluent's format) |
/// | `schema_file = "path"` | read when compiling, from the folder of Cargo.toml |
/// | `message = "shop.Order"` | with `protobuf`: which message of the file; default the type's name |
/// | `topic = "orders"` | the type's own topic: `klamm::serde::RecordTopic` |
/// | `key = field` | the field that is the record's key: `klamm::serde::RecordKey` |
/// | `header = "klamm-type"` | on an enum: the header that tells its variants apart, `#[record(name = "...")]` each |
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    record::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// serde's `Serialize`, which needs no dependency on serde: the derive of `klamm::prelude`.
///
/// All of serde's attributes are understood but `remote`, `crate` and `bound`, which name serde's own derive.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn derive_serialize(input: TokenStream) -> TokenStream {
    derive_with_serde(serde_derives::Which::Serialize, input)
}

/// serde's `Deserialize`, which needs no dependency on serde: the derive of `klamm::prelude`.
///
/// All of serde's attributes are understood but `remote`, `crate` and `bound`, which name serde's own derive.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn derive_deserialize(input: TokenStream) -> TokenStream {
    derive_with_serde(serde_derives::Which::Deserialize, input)
}

fn derive_with_serde(which: serde_derives::Which, input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    serde_derives::expand(which, &input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct one of headers: an argument of listeners, and what a template sends along.
///
/// A field is a header of the same name (`#[header(rename = "trace-id")]`, or `#[headers(rename_all = "kebab-case")]`
/// on the struct): text for `String` and numbers, bytes for `Bytes` and `Vec<u8>`. `Option<T>` may be missing, `Vec<T>`
/// may be there several times, `#[header(big_endian)]` is for numbers as bytes. See `klamm::serde::header`.
#[proc_macro_derive(Headers, attributes(header, headers))]
pub fn derive_headers(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    headers::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
