//! `klamm produce --input json` fed with lines that are wrong: the line is named, and what was written before it is
//! told.

use crate::broker::Broker;
use crate::{fails_at, succeeds};

#[test]
fn a_hostile_line_is_named_and_what_was_written_before_it_is_told() {
    let broker = Broker::start(&[]);
    let address = &broker.address;
    let good = b"{\"value\":\"a\"}\n{\"value\":\"b\"}\n".as_slice();
    for (number, (line, because)) in [
        (b"{\"value_base64\":\"?\"}".to_vec(), "`value_base64` is no base64"),
        (b"{\"valeu\":1}".to_vec(), "there is no field `valeu`"),
        (b"{\"value\":\"\xff\"}".to_vec(), "no JSON"),
        (b"{\"timestamp_ms\":1e99}".to_vec(), "whole number of 64 bits"),
        ([b"{\"value\":\"", &vec![b'x'; 100_000_000][..], b"\"}"].concat(), "the record takes 1000000"),
        ([b"{\"value\":", &vec![b'['; 1_000_000][..]].concat(), "no JSON: EOF"),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("t{number}");
        let input = [good, &line, b"\n{\"value\":\"never\"}\n"].concat();
        let stderr = fails_at(address, &["produce", &topic, "--input", "json"], &input);
        assert!(stderr.contains(&format!("2 records written to {topic}")), "{because}: {stderr}");
        assert!(stderr.contains("error: line 3: ") && stderr.contains(because), "{because}: {stderr}");
        assert!(stderr.len() < 1_000, "an error is not as long as what is wrong: {} bytes", stderr.len());
        let consume = ["consume", &topic, "--from", "beginning", "--until-end"];
        assert_eq!(succeeds(address, &consume, b""), "a\nb\n", "{because}");
    }
}
