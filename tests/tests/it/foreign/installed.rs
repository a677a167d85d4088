//! Where tests/foreign/setup has put the clients, and a word when it has not.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_tests::{repository, run, run_command, skip};
use tokio::process::Command;

/// Linking, and on a machine whose cache of builds is empty compiling.
const BUILD: Duration = Duration::from_secs(300);
const COMPILE: Duration = Duration::from_secs(120);

fn foreign() -> PathBuf {
    let cache = std::env::var_os("KLAMM_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("a home folder")).join(".cache/klamm")
    });
    cache.join("foreign")
}

/// The folder of an installation whose pins are those of `pins` in tests/foreign; otherwise `what` is skipped.
fn installed(what: &str, name: &str, pins: &str) -> Option<PathBuf> {
    let folder = foreign().join(name);
    let wanted =
        std::fs::read(repository().join("tests/foreign").join(pins)).expect("the pins are in the repository");
    if std::fs::read(folder.join("pins")).is_ok_and(|have| have == wanted) {
        return Some(folder);
    }
    skip(what, &format!("{name} is not installed as {pins} has it"), "scripts/setup test");
    None
}

/// The class path of Apache Kafka's jars.
pub(crate) fn java_jars(what: &str) -> Option<String> {
    installed(what, "java", "java/pom.xml").map(|folder| folder.join("jars/*").display().to_string())
}

/// As [`java_jars`], of the last kafka-clients before 4.0.
pub(super) fn old_java_jars(what: &str) -> Option<String> {
    installed(what, "java-3.9", "java/pom-3.9.xml").map(|folder| folder.join("jars/*").display().to_string())
}

/// The class path of spring-kafka's jars.
pub(super) fn spring_jars(what: &str) -> Option<String> {
    installed(what, "spring", "java/pom-spring.xml").map(|folder| folder.join("jars/*").display().to_string())
}

/// Compiles a program of tests/foreign/java into a folder of this name; the class path to start it with.
pub(crate) async fn java_build(jars: &str, program: &str, folder: &str) -> String {
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{folder}-classes"));
    let source = repository().join(format!("tests/foreign/java/{program}.java"));
    // Only the launcher of a class path knows what `*` is.
    let listed = std::fs::read_dir(jars.trim_end_matches('*')).unwrap();
    let listed: Vec<String> = listed.map(|jar| jar.unwrap().path().display().to_string()).collect();
    let listed = listed.join(":");
    let compile = ["-m", "jdk.compiler/com.sun.tools.javac.Main", "-nowarn", "-cp", &listed, "-d"];
    let paths = [classes.as_os_str(), source.as_os_str()];
    let compiled = run("java", compile.into_iter().map(OsStr::new).chain(paths), COMPILE).await;
    assert!(compiled.success, "{}", compiled.stderr);
    format!("{}:{jars}", classes.display())
}

/// The interpreter that has what `pins` names.
pub(crate) fn python(what: &str, pins: &str) -> Option<PathBuf> {
    installed(what, pins, &format!("python/requirements/{pins}.txt")).map(|folder| folder.join("bin/python"))
}

/// The folder for NODE_PATH.
pub(super) fn node_modules(what: &str) -> Option<PathBuf> {
    installed(what, "node", "node/package-lock.json").map(|folder| folder.join("node_modules"))
}

/// The program of a package of tests/foreign/go, linked from what is in Go's caches.
pub(crate) async fn go_build(what: &str, package: &str) -> Option<PathBuf> {
    let folder = installed(what, "go", "go/go.sum")?;
    let newer = folder.join("toolchain/bin/go");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    let mut go = Command::new(if newer.is_file() { newer } else { PathBuf::from("go") });
    go.args(["build", "-C", "tests/foreign/go", "-o"]).arg(&program).arg(format!("./{package}"));
    go.env("GOPROXY", "off").env("GOFLAGS", "-mod=readonly");
    let built = run_command(go, BUILD).await;
    assert!(built.success, "{}", built.stderr);
    Some(program)
}
