//! The rounds: each system in turn, the one or the other first, and what the medians say.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::Result;
use crate::work::Mode;

/// Steps a second, processor seconds for a million of them, MiB at most.
const FIGURES: [&str; 3] = ["rate", "cpu", "rss"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum System {
    Klamm,
    KafkaStreams,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Klamm => "klamm",
            Self::KafkaStreams => "kafka-streams",
        }
    }
}

type Measured = BTreeMap<(Mode, System, &'static str), Vec<f64>>;

/// All rounds. `only` limits them to modes whose name contains it; `java` is the command that runs Kafka Streams,
/// without its arguments.
pub(crate) fn run(bootstrap: &str, rounds: usize, only: &str, java: &[&str]) -> Result<()> {
    let modes: Vec<Mode> = Mode::all().into_iter().filter(|mode| mode.name().contains(only)).collect();
    let mut measured = Measured::new();
    for round in 0..rounds {
        for mode in &modes {
            let mut systems = [System::Klamm, System::KafkaStreams];
            systems.rotate_left(round % 2);
            for system in systems {
                if system == System::Klamm || !java.is_empty() {
                    measure(bootstrap, *mode, system, java, &mut measured)?;
                }
            }
        }
    }
    println!("\nmedians of {rounds}; steps/s, cpu-s for a million steps, MiB at most; x: of Klamm's");
    modes.iter().for_each(|mode| summary(*mode, &measured));
    Ok(())
}

fn measure(
    bootstrap: &str,
    mode: Mode,
    system: System,
    java: &[&str],
    measured: &mut Measured,
) -> Result<()> {
    let mut command = match (system, java) {
        (System::KafkaStreams, [program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        _ => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("one");
            command
        }
    };
    command.args([bootstrap, mode.work.name(), mode.guarantee.name(), &mode.cache_bytes.to_string()]);
    if system == System::KafkaStreams {
        command.args([mode.work.topics().join(","), mode.work.steps().to_string()]);
        command.arg(mode.guarantee.commit_interval_ms().to_string());
    }
    let output = command.stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("rate=")).filter(|_| output.status.success());
    let Some(line) = line else {
        let reason = String::from_utf8_lossy(&output.stderr);
        println!("{} {} FAILED: {}", mode.name(), system.name(), reason.trim());
        return Ok(());
    };
    println!("{} {} {line}", mode.name(), system.name());
    for figure in line.split(' ') {
        let Some((name, value)) = figure.split_once('=') else { continue };
        if let Some(name) = FIGURES.into_iter().find(|known| *known == name) {
            measured.entry((mode, system, name)).or_default().push(value.parse()?);
        }
    }
    Ok(())
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn summary(mode: Mode, measured: &Measured) {
    let of = |system, figure| measured.get(&(mode, system, figure)).map(|values| median(values));
    for system in [System::Klamm, System::KafkaStreams] {
        let Some(rate) = of(system, "rate") else { continue };
        let mut line = format!("{:35} {:13} {rate:>9.0}/s", mode.name(), system.name());
        for (figure, unit) in [("cpu", "cpu-s/M"), ("rss", "MiB")] {
            let (Some(value), ours) = (of(system, figure), of(System::Klamm, figure)) else { continue };
            line.push_str(&format!("  {value:>8.2} {unit}"));
            if let (Some(ours), true) = (ours, system != System::Klamm) {
                line.push_str(&format!(" ({:.2}x)", value / ours));
            }
        }
        println!("{line}");
    }
}
