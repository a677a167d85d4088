//! What a row of a table is, and how a table is held against the broker.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::BrokerBuilder;
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::{ErrorCode, Request};

use super::heard::PRIVATE;
use super::mutate::{Bent, mutate};
use super::target::{Known, Outcome, SOON, Target};
use super::{rng, seed, times};

/// How often a row is bent.
const USUALLY: u64 = 20;
const THOROUGHLY: u64 = 1_000;

/// How the broker is to be another than usual.
pub(super) type Change = fn(BrokerBuilder) -> BrokerBuilder;

/// What becomes of a row's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expect {
    /// The connection is closed, within a second.
    Closed,
    /// It is closed when this has passed.
    ClosedAfter(Duration),
    /// There is an answer without an error.
    Served,
    /// There is an answer, and this is among its errors.
    Refused(ErrorCode),
    /// There is an answer, whatever it says.
    Answered,
}

/// A row.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    /// Whole requests that are asked before, on the same connection.
    pub(super) before: Vec<Bytes>,
    pub(super) bytes: Bytes,
    pub(super) expect: Expect,
    /// Reads the error codes of an answer.
    codes: fn(Bytes, i16) -> Vec<i16>,
    version: i16,
    /// Whether what is made of it may change the broker or the topics.
    pub(super) changes: bool,
}

impl Case {
    /// Bytes that are no request.
    pub(super) fn raw(name: &str, bytes: impl Into<Bytes>, expect: Expect) -> Self {
        let (before, codes) = (Vec::new(), (|_, _| Vec::new()) as fn(Bytes, i16) -> Vec<i16>);
        let (name, bytes) = (name.to_owned(), bytes.into());
        Self { name, before, bytes, expect, codes, version: 0, changes: false }
    }

    /// A request.
    pub(super) fn of<R: Request<Response: Debug>>(
        name: &str,
        request: &R,
        version: i16,
        expect: Expect,
    ) -> Self {
        Self::bent::<R>(name, frame_of(request, version), version, expect)
    }

    /// The bytes of a request that was bent.
    pub(super) fn bent<R: Request<Response: Debug>>(
        name: &str,
        bytes: impl Into<Bytes>,
        version: i16,
        expect: Expect,
    ) -> Self {
        Self { codes: codes_of::<R>, version, ..Self::raw(name, bytes, expect) }
    }

    pub(super) fn after<R: Request>(mut self, request: &R, version: i16) -> Self {
        self.before.push(frame_of(request, version));
        self
    }

    /// Bent, it may change the broker or the topics.
    pub(super) fn changing(self) -> Self {
        Self { changes: true, ..self }
    }

    async fn hold(&self, target: &mut Target) {
        let Self { name, before, bytes, expect, .. } = self;
        let patience = match expect {
            Expect::ClosedAfter(after) => *after + SOON,
            _ => SOON,
        };
        let (outcome, took) = target.send(before, bytes, patience).await;
        let codes = match &outcome {
            Outcome::Answered(frame) => Some((self.codes)(frame.clone(), self.version)),
            _ => None,
        };
        let right = match expect {
            Expect::Closed => outcome == Outcome::Closed,
            Expect::ClosedAfter(after) => outcome == Outcome::Closed && took >= *after,
            Expect::Served => codes.as_ref().is_some_and(|codes| codes.iter().all(|code| *code == 0)),
            Expect::Refused(code) => codes.as_ref().is_some_and(|codes| codes.contains(&code.code())),
            Expect::Answered => codes.is_some(),
        };
        assert!(right, "{name}: {expect:?}, and it is {outcome:?} with {codes:?} after {took:?}");
    }
}

/// A request from somebody with a name that is not to be repeated.
pub(super) fn frame_of<R: Request>(request: &R, version: i16) -> Bytes {
    encode_request(request, version, 77, Some(PRIVATE)).unwrap()
}

/// All error codes of an answer, wherever they stand in it.
fn codes_of<R: Request<Response: Debug>>(frame: Bytes, version: i16) -> Vec<i16> {
    let (_, response) = decode_response::<R>(frame, version).unwrap();
    let said = format!("{response:?}");
    let codes = said.split("error_code: ").skip(1);
    codes.map(|rest| rest.split([',', ' ', '}']).next().unwrap().parse().unwrap()).collect()
}

/// A frame with this body.
pub(super) fn framed(body: &[u8]) -> Bytes {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame.into()
}

/// A request from its parts: header of version 1 with a name, and a body.
pub(super) fn request(api: i16, version: i16, body: &[u8]) -> Bytes {
    let mut bytes = [api.to_be_bytes(), version.to_be_bytes()].concat();
    bytes.extend(77_i32.to_be_bytes());
    bytes.extend((PRIVATE.len() as i16).to_be_bytes());
    bytes.extend(PRIVATE.as_bytes());
    bytes.extend(body);
    framed(&bytes)
}

/// The same with a header of version 2, as flexible requests have.
pub(super) fn flexible(api: i16, version: i16, body: &[u8]) -> Bytes {
    request(api, version, &[&[0], body].concat())
}

/// Holds every row against a broker of its own, and then what is made of it by bending. What `rows` gives for one
/// broker it gives for all, but for what the broker made up.
pub(super) async fn hold(table: &str, rows: fn(&Known) -> Vec<Case>) {
    hold_with(table, rows, |builder| builder).await;
}

/// The same with other settings.
pub(super) async fn hold_with(table: &str, rows: fn(&Known) -> Vec<Case>, change: Change) {
    let seed = seed();
    let count = rows(&Known::default()).len();
    assert!(count > 5, "{table}");
    for number in 0..count {
        let mut target = Target::with(change).await;
        let mut all = rows(&target.known);
        let corpus: Vec<Bytes> = all.iter().map(|case| case.bytes.clone()).collect();
        let case = all.swap_remove(number);
        case.hold(&mut target).await;
        target.unharmed(&case.name, true).await;
        for round in 0..times(USUALLY, THOROUGHLY) {
            let rng = rng(seed, &case.name, round);
            let Bent { bytes, how } = mutate(&case.bytes, &corpus, &rng);
            let what = format!("{table}: {}, bent in round {round} ({how})", case.name);
            target.attack(&case.before, &bytes, &what).await;
            if round % 100 == 99 {
                target.unharmed(&what, !case.changes).await;
            }
        }
        target.unharmed(&format!("{table}: {}", case.name), !case.changes).await;
    }
}
