//! The rounds: each system in turn, in another order each time, and what the medians say.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::Result;
use crate::mode::{Mode, System};

/// Records a second, processor seconds for a million records, MiB at most; of latencies p50 and p99 in ms.
const FIGURES: [&str; 5] = ["rate", "cpu", "rss", "p50", "p99"];

type Figures = BTreeMap<(Mode, System, &'static str), Vec<f64>>;

/// All rounds. `only` limits them to modes whose name contains it; `spring` is the command that runs spring-kafka,
/// without its arguments.
pub fn run(bootstrap: &str, rounds: usize, only: &str, spring: &[&str]) -> Result<()> {
    let mut figures = Figures::new();
    for round in 0..rounds {
        for mode in Mode::ALL.into_iter().filter(|mode| mode.name().contains(only)) {
            let mut systems = System::ALL;
            systems.rotate_left(round % System::ALL.len());
            for system in systems.into_iter().filter(|system| system.can(mode)) {
                if system == System::Spring && spring.is_empty() {
                    continue;
                }
                measure(bootstrap, round, mode, system, spring, &mut figures)?;
            }
        }
    }
    summary(&figures, rounds);
    Ok(())
}

fn measure(
    bootstrap: &str,
    round: usize,
    mode: Mode,
    system: System,
    spring: &[&str],
    figures: &mut Figures,
) -> Result<()> {
    let this = std::env::current_exe()?;
    let records = mode.records().to_string();
    let mut command = match (system, spring) {
        (System::Spring, [program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(bootstrap);
            command
        }
        _ => {
            let mut command = Command::new(&this);
            command.args(["one", system.name(), bootstrap]);
            command
        }
    };
    command.args([mode.name(), &records]);
    let topic = match mode {
        Mode::Latency => format!("paced-{}-{round}-{}", system.name(), std::process::id()),
        other => other.topic().to_owned(),
    };
    let mut pace = match mode {
        Mode::Latency => Some(Command::new(&this).args(["pace", bootstrap, &topic]).spawn()?),
        _ => None,
    };
    if pace.is_some() {
        // Its topic is there before the reader asks for it.
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let output = command.env("TOPIC", topic).stderr(Stdio::piped()).output()?;
    if let Some(pace) = &mut pace {
        pace.wait()?;
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let line = line.lines().find(|line| line.starts_with("rate="));
    let Some(line) = line.filter(|_| output.status.success()) else {
        println!(
            "{} {} FAILED: {}",
            mode.name(),
            system.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return Ok(());
    };
    println!("{} {} {line}", mode.name(), system.name());
    for figure in line.split(' ') {
        let Some((name, value)) = figure.split_once('=') else { continue };
        if let Some(name) = FIGURES.into_iter().find(|known| *known == name) {
            figures.entry((mode, system, name)).or_default().push(value.parse()?);
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn summary(figures: &Figures, rounds: usize) {
    println!("\nmedians of {rounds}; records/s, cpu-s for a million records, MiB at most, ms; x: of Klamm's");
    for mode in Mode::ALL {
        let of = |system, figure| figures.get(&(mode, system, figure)).map(|values| median(values));
        for system in System::ALL {
            let Some(rate) = of(system, "rate") else { continue };
            let mut line = format!("{:11} {:11} {rate:>9.0}/s", mode.name(), system.name());
            for (figure, unit) in [("cpu", "cpu-s/M"), ("rss", "MiB"), ("p50", "ms p50"), ("p99", "ms p99")] {
                let (Some(value), ours) = (of(system, figure), of(System::Klamm, figure)) else { continue };
                line.push_str(&format!("  {value:>8.2} {unit}"));
                if let (Some(ours), true) = (ours, system != System::Klamm) {
                    line.push_str(&format!(" ({:.2}x)", value / ours));
                }
            }
            println!("{line}");
        }
    }
}
