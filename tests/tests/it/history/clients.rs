//! All clients of a run: started together, killed and started anew one by one, and stopped in good order.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::Assignor;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::groups::{Copier, read_as_member};
use super::lookers::{ask, read_everything};
use super::operation::Isolation;
use super::world::World;
use super::writers::{Mover, write};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Idempotent,
    Plain,
    Mover,
    Copier,
    Member(Assignor),
    Reader(Isolation),
    Asker,
}

/// Stopping is a matter of what is under way, each with a deadline.
const STOP: Duration = Duration::from_secs(25);

#[derive(Debug)]
struct Client {
    name: String,
    role: Role,
    task: JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Clients {
    world: Arc<World>,
    clients: Vec<Client>,
    /// Who has somebody else's transactional id.
    twins: Vec<JoinHandle<()>>,
}

impl Role {
    fn writes(self) -> bool {
        matches!(self, Self::Idempotent | Self::Plain | Self::Mover)
    }
}

impl Clients {
    pub(super) fn start(world: &Arc<World>) -> Self {
        let assignors = [Assignor::Range, Assignor::CooperativeSticky, Assignor::Sticky];
        let assignor = assignors[usize::try_from(world.below(3)).unwrap()];
        let roles = [
            Role::Idempotent,
            Role::Idempotent,
            Role::Plain,
            Role::Mover,
            Role::Mover,
            Role::Copier,
            Role::Copier,
            Role::Member(assignor),
            Role::Member(assignor),
            Role::Member(assignor),
            Role::Reader(Isolation::Uncommitted),
            Role::Reader(Isolation::Committed),
            Role::Asker,
        ];
        let client = |(at, role): (usize, Role)| {
            let name = format!("{}-{at}", word(role));
            let task = spawn(world, &name, &name, role, false);
            Client { name, role, task }
        };
        let clients = roles.into_iter().enumerate().map(client).collect();
        Self { world: Arc::clone(world), clients, twins: Vec::new() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().map(|client| &*client.name)
    }

    /// Somebody ends without a word, and begins anew after a while.
    pub(super) async fn kill_one(&mut self) {
        let at = usize::try_from(self.world.below(self.clients.len() as u64)).unwrap();
        let client = &mut self.clients[at];
        client.task.abort();
        ended((&mut client.task).await, &client.name);
        tokio::time::sleep(Duration::from_millis(self.world.below(200))).await;
        client.task = spawn(&self.world, &client.name, &client.name, client.role, false);
    }

    /// Somebody with a transactional id has a successor and does not know it.
    pub(super) fn start_twin(&mut self) {
        let with_ids: Vec<&Client> =
            self.clients.iter().filter(|client| matches!(client.role, Role::Mover | Role::Copier)).collect();
        let of = with_ids[usize::try_from(self.world.below(with_ids.len() as u64)).unwrap()];
        let name = format!("twin-{}-of-{}", self.twins.len(), of.name);
        let twin = spawn(&self.world, &name, &of.name, of.role, true);
        self.twins.push(twin);
    }

    /// Who has somebody else's id goes away: in groups there are no more than partitions then.
    pub(super) async fn end_twins(&mut self) {
        for task in std::mem::take(&mut self.twins) {
            task.abort();
            ended(task.await, "a twin");
        }
    }

    /// Waits for those that write by themselves, or for all.
    pub(super) async fn ended(&mut self, all: bool) {
        let of = |role: Role| all || role.writes();
        let ending: Vec<Client> = self.clients.extract_if(.., |client| of(client.role)).collect();
        for Client { name, mut task, .. } in ending {
            match timeout(STOP, &mut task).await {
                Ok(told) => ended(told, &name),
                Err(_) => {
                    self.world.recorder.hung(&name, "its end");
                    task.abort();
                }
            }
        }
    }
}

/// A client that panicked is a failure.
fn ended(told: Result<(), tokio::task::JoinError>, name: &str) {
    if let Err(error) = told {
        assert!(error.is_cancelled(), "{name}: {error}");
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Idempotent => "idempotent",
        Role::Plain => "plain",
        Role::Mover => "mover",
        Role::Copier => "copier",
        Role::Member(_) => "member",
        Role::Reader(Isolation::Uncommitted) => "reader",
        Role::Reader(Isolation::Committed) => "committed-reader",
        Role::Asker => "asker",
    }
}

fn spawn(world: &Arc<World>, name: &str, id: &str, role: Role, twin: bool) -> JoinHandle<()> {
    let (world, name, id) = (Arc::clone(world), name.to_owned(), id.to_owned());
    match role {
        Role::Idempotent => tokio::spawn(write(world, name, true)),
        Role::Plain => tokio::spawn(write(world, name, false)),
        Role::Mover => tokio::spawn(Mover { world, name, id, twin }.run()),
        Role::Copier => tokio::spawn(Copier { world, name, id, twin }.run()),
        Role::Member(assignor) => tokio::spawn(read_as_member(world, name, assignor)),
        Role::Reader(isolation) => tokio::spawn(read_everything(world, name, isolation)),
        Role::Asker => tokio::spawn(ask(world, name)),
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.clients.iter().for_each(|client| client.task.abort());
        self.twins.iter().for_each(JoinHandle::abort);
    }
}
