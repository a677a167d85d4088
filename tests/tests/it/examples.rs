//! Every example runs to its end; the quickstart counts exactly, adds over runs, also when it is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{build_programs, klamm_binary, run, run_with_input, seed, skip};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;

const DEADLINE: Duration = Duration::from_secs(120);

static EXAMPLES: OnceCell<PathBuf> = OnceCell::const_new();

/// The binary of an example, built from this checkout once for each run of the tests.
async fn example(name: &str) -> PathBuf {
    let folder = EXAMPLES.get_or_init(|| async {
        build_programs("klamm-examples").await;
        klamm_binary().await.parent().expect("a binary lies in a folder").to_owned()
    });
    folder.await.join(name)
}

async fn runs(name: &str, arguments: &[&str], said: &str) {
    let finished = run(example(name).await, arguments, DEADLINE).await;
    assert!(finished.success, "{name} failed:\n{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(said), "{name} did not say {said:?}:\n{}", finished.stdout);
}

#[tokio::test]
async fn hello_listener() {
    runs("hello_listener", &[], "Hello, Klamm!").await;
}

#[tokio::test]
async fn hello_stream() {
    runs("hello_stream", &[], "\"the\" was counted Some(3) times").await;
}

#[tokio::test]
async fn test_a_listener() {
    runs("test_a_listener", &[], "charged [(1, 250)]").await;
}

#[tokio::test]
async fn axum_service() {
    let name = "axum_service";
    let finished = run(example(name).await, &[""; 0], DEADLINE).await;
    assert!(finished.success, "{name} failed:\n{}{}", finished.stdout, finished.stderr);
    for said in [
        "charged beer",
        "orders-0 offset 0",
        "bill (billing): running, 1 partitions, lag 0",
        "klamm_listener_deliveries_total{listener=\"bill\",group=\"billing\",topic=\"orders\"} 1",
        "klamm_listener_ready{listener=\"bill\",group=\"billing\"} 1",
    ] {
        assert!(finished.stdout.contains(said), "{name} did not say {said:?}:\n{}", finished.stdout);
    }
}

#[tokio::test]
async fn record_types() {
    runs("record_types", &[], "order 1 from shop 3 is off: it rains").await;
}

#[tokio::test]
async fn schema_registry() {
    runs("schema_registry", &[], "order 1 costs 0 cents").await;
}

#[tokio::test]
async fn replay_dead_letters() {
    runs(
        "replay_dead_letters",
        &[],
        "3 went back to work\ncharged order-1\ncharged order-2\ncharged order-3",
    )
    .await;
}

#[tokio::test]
async fn retry_topics() {
    let said = "charged `fine` at attempt 1 from orders\n\
                charged `busy` at attempt 3 from orders-retry-1s-billing\n\
                gave up `not covered`";
    runs("retry_topics", &[], said).await;
}

#[tokio::test]
async fn exactly_once() {
    let said = "invoices: invoice for cups at attempt 1\n\
                invoices: invoice for tea at attempt 2\n\
                orders-dlt: dynamite\n\
                parcels: a parcel of cups\n\
                parcels: a parcel of tea";
    runs("exactly_once", &[], said).await;
}

#[tokio::test]
async fn enrichment() {
    runs("enrichment", &[], "c1: Anna pays 1050 euro cents\nc2: a guest pays 250 euro cents\n").await;
}

#[tokio::test]
async fn fraud_window() {
    let name = "fraud_window";
    runs(name, &[], "ALERT card-1: 110000 cents within a minute").await;
    runs(name, &[], "too late: 1 cents of card-2").await;
}

#[tokio::test]
async fn sessions() {
    runs("sessions", &[], "berta: shop\nanna: home > shop > cart\n").await;
}

#[tokio::test]
async fn top_n() {
    runs("top_n", &[], "castle (3), inn (2), road (1)").await;
}

#[tokio::test]
async fn foreign_keys() {
    let said =
        r#"anna moved: [("1", "anna tea to Oslo"), ("2", "berta cups to Rome"), ("3", "anna cake to Oslo")]"#;
    runs("foreign_keys", &[], said).await;
    runs(
        "foreign_keys",
        &[],
        r#"berta takes the cake: [("1", "anna tea to Oslo"), ("2", "berta cups to Rome"), "#,
    )
    .await;
}

#[tokio::test]
async fn money_transfers() {
    runs("money_transfers", &[], "10 accounts, 0 cents in all, every balance is right: true").await;
}

#[tokio::test]
async fn async_enrichment() {
    runs("async_enrichment", &[], "nobody knows where mallory looked at /admin\n200 logins located\n").await;
}

#[tokio::test]
async fn stream_queries() {
    runs("stream_queries", &[], "the: 2\nvillage: never seen").await;
}

#[tokio::test]
async fn queries_over_http() {
    runs("queries_over_http", &[], "village: Some(5), a copy: ").await;
}

#[tokio::test]
async fn test_a_stream() {
    runs("test_a_stream", &[], "roof at 0: 24 degrees").await;
}

#[tokio::test]
async fn request_reply() {
    let said = "klamm has 5 letters\nthe request failed there: there is nothing to measure";
    runs("request_reply", &[], said).await;
}

#[tokio::test]
async fn any_kafka_client() {
    runs("any_kafka_client", &["--once"], "came back as it was written").await;
}

/// The counts of two runs over different files, the second on top of the first; standard input counts as well.
#[tokio::test]
async fn quickstart_counts_exactly_and_adds_over_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    std::fs::create_dir_all(first.join("deeper/.hidden")).unwrap();
    std::fs::create_dir_all(first.join("target")).unwrap();
    let texts = [
        "It's THE End, the-end: 1 2 3\n\nÄpfel äpfel Straße İstanbul ΣΑΣ 東京 x_y\nlast line without an end",
        "second\tfile\r\nthe\n",
    ];
    std::fs::write(first.join("a.txt"), texts[0]).unwrap();
    std::fs::write(first.join("deeper/b.md"), texts[1]).unwrap();
    std::fs::write(first.join("latin1.txt"), b"caf\xe9 the\n").unwrap();
    std::fs::write(first.join("binary"), b"the the\0the\n").unwrap();
    std::fs::write(first.join("deeper/.hidden/c.txt"), "the hidden\n").unwrap();
    std::fs::write(first.join("target/d.txt"), "the target\n").unwrap();
    let mut expected = Counts::new();
    for text in [texts[0], texts[1], "caf\u{fffd} the\n"] {
        count(&mut expected, text);
    }
    assert_eq!(quickstart(folder.path(), &[&first], "").await, expected);

    let second = folder.path().join("second.txt");
    let corpus = corpus(2, 3_000);
    std::fs::write(&second, &corpus).unwrap();
    count(&mut expected, &corpus);
    assert_eq!(quickstart(folder.path(), &[&second], "").await, expected);

    // The same inputs again are new input: the run before was finished.
    count(&mut expected, &corpus);
    assert_eq!(quickstart(folder.path(), &[&second], "").await, expected);

    count(&mut expected, "from the standard input\n");
    assert_eq!(quickstart(folder.path(), &[Path::new("-")], "from the standard input\n").await, expected);
}

/// Without `--until-end` the broker goes on serving, and the line for kcat that is shown then works as it stands.
#[tokio::test]
async fn quickstart_says_what_to_try_next() {
    if !Path::new("/usr/bin/kcat").exists() {
        return skip("the quickstart's line for kcat", "there is no kcat", "scripts/setup test && make test");
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.txt");
    std::fs::write(&input, "gorge gorge stream").unwrap();
    let mut running = Command::new(example("quickstart").await)
        .arg("--data-dir")
        .args([&folder.path().join("data"), &input])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(running.stdout.take().unwrap()).lines();
    let line_for_kcat = async {
        loop {
            let line = said.next_line().await.unwrap().expect("it goes on serving");
            if line.trim_start().starts_with("kcat ") {
                return line;
            }
        }
    };
    let line = tokio::time::timeout(DEADLINE, line_for_kcat).await.expect("it says what to try");
    let shown = run("sh", ["-c", &line], DEADLINE).await;
    assert!(shown.stdout.contains("gorge 2"), "{line}\n{}{}", shown.stdout, shown.stderr);
    running.kill().await.unwrap();
}

/// Killed again and again at random moments, then left alone: each word is counted as often as it stands there.
#[tokio::test]
async fn quickstart_counts_exactly_though_it_is_killed() {
    let seed = seed(3);
    let rng = SeededRng::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::create_dir(&input).unwrap();
    let mut expected = Counts::new();
    for file in 0..4 {
        let corpus = corpus(seed + file, 15_000);
        count(&mut expected, &corpus);
        std::fs::write(input.join(format!("{file}.txt")), corpus).unwrap();
    }

    let program = example("quickstart").await;
    let mut killed = 0;
    for _ in 0..4 {
        let mut running = Command::new(&program)
            .args(arguments(folder.path(), &[&input]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(running.stdout.take().unwrap());
        let mut line = String::new();
        // The first line comes when the broker serves.
        tokio::time::timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("it starts").unwrap();
        let moment = Duration::from_millis(100 + rng.below(1_200));
        if tokio::time::timeout(moment, running.wait()).await.is_err() {
            running.kill().await.unwrap();
            killed += 1;
        } else {
            break; // It was faster.
        }
    }
    assert!(killed > 0, "it was never killed: the run proves nothing");

    let counts = quickstart(folder.path(), &[&input], "").await;
    assert_eq!(counts, expected);
}

type Counts = BTreeMap<String, i64>;

/// Runs the quickstart to its end; gives the counts it wrote.
async fn quickstart(folder: &Path, inputs: &[&Path], stdin: &str) -> Counts {
    let finished = run_with_input(
        example("quickstart").await,
        arguments(folder, inputs),
        stdin.as_bytes().to_vec(),
        DEADLINE,
    )
    .await;
    assert!(finished.success, "the quickstart failed:\n{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(" words/s"), "{}", finished.stdout);
    let text = std::fs::read_to_string(folder.join("counts")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.is_sorted(), "counts are sorted by word");
    lines
        .iter()
        .map(|line| {
            let (word, count) = line.split_once('\t').unwrap_or_else(|| panic!("no tab in {line:?}"));
            (word.to_owned(), count.parse().unwrap())
        })
        .collect()
}

fn arguments(folder: &Path, inputs: &[&Path]) -> Vec<PathBuf> {
    let mut arguments = vec!["--until-end".into(), "--data-dir".into(), folder.join("data")];
    arguments.extend(["--counts".into(), folder.join("counts")]);
    arguments.extend(inputs.iter().map(|input| (*input).to_owned()));
    arguments
}

/// Counts the words of a text by another way than the quickstart does.
fn count(counts: &mut Counts, text: &str) {
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if character.is_alphanumeric() {
            word.push(character);
        } else if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
            word.clear();
        }
    }
}

/// So many lines of words, few of them frequent and many rare, as in a language.
fn corpus(seed: u64, lines: u64) -> String {
    let rng = SeededRng::new(seed);
    let mut text = String::new();
    for line in 0..lines {
        for _ in 0..rng.below(12) {
            let rank = rng.below(1 << rng.below(12));
            text.push_str(&format!("word{rank} "));
        }
        text.push_str(&format!("Line{}.\n", line % 500));
    }
    text
}
