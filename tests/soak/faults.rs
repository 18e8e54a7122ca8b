//! Faults carried out, and how long it takes until nothing is left of them.

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::deck::{Fault, Kind, Lane, Plan};
use crate::fleet::Fleet;
use crate::harness::load::send_at_once;
use crate::harness::{Client, Node, Recorder, Registry, Roamer, ms, secs};
use crate::report::Report;

/// A node that was in trouble so lately is not ended.
const RESTED: Duration = secs(3);
/// However slow the machine is, nothing takes longer to mend.
const MENDED_WITHIN: Duration = secs(30);
/// A node that drains ends within this time.
const DRAINED_WITHIN: Duration = secs(10);
/// Messages of a burst, and bytes of each.
const BURST: usize = 2000;
const BURST_BYTES: usize = 200;

/// The lanes of one round.
pub(crate) struct Lanes<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) recorder: &'a Recorder,
    pub(crate) room: &'a str,
    pub(crate) people: &'a [Roamer],
    pub(crate) report: &'a Report,
    /// No fault begins after this.
    pub(crate) until: Instant,
}

impl Lanes<'_> {
    /// Runs all lanes until it is time and all that they broke is mended.
    pub(crate) async fn run(&self, plan: &mut Plan) -> Result<()> {
        let lanes = (
            self.lane(&mut plan.ends),
            self.lane(&mut plan.stops),
            self.lane(&mut plan.registry),
            self.lane(&mut plan.clients),
        );
        let brokers = async {
            match self.fleet.has_brokers() {
                true => self.lane(&mut plan.brokers).await,
                false => Ok(()),
            }
        };
        tokio::try_join!(lanes.0, lanes.1, lanes.2, lanes.3, brokers)?;
        Ok(())
    }

    async fn lane(&self, lane: &mut Lane) -> Result<()> {
        while Instant::now() < self.until {
            let fault = lane.next();
            sleep(fault.pause).await;
            self.report.begins(fault.kind);
            let done = match fault.kind {
                Kind::Kill | Kind::Restart => self.end_node(&fault).await,
                Kind::Freeze => self.stop_node(&fault).await,
                Kind::RegistryKill => self.kill_registry(&fault).await,
                Kind::RegistryFreeze => self.stop_registry(&fault).await,
                Kind::BrokerKill | Kind::BrokerFreeze => self.hurt_broker(&fault).await,
                Kind::Move => {
                    self.people[fault.victim % self.people.len()].shove().await;
                    Ok(())
                }
                Kind::Burst => self.burst(&fault).await,
                Kind::Slow => self.slow_client(&fault).await,
            };
            done.with_context(|| format!("{}: {fault:?}", fault.kind.name()))?;
        }
        Ok(())
    }

    async fn end_node(&self, fault: &Fault) -> Result<()> {
        let (number, mut node) = loop {
            match self.fleet.take(fault.victim, RESTED) {
                Some(taken) => break taken,
                None => sleep(ms(100)).await,
            }
        };
        if fault.kind == Kind::Kill {
            self.recorder.kill(&mut node).await?;
        } else {
            node.process.stop(DRAINED_WITHIN).await?;
        }
        sleep(fault.lasts).await;
        // On its ports, unless somebody has taken them meanwhile.
        if !fault.same_ports || node.again_on_its_ports().await.is_err() {
            node = Node::start(self.fleet.args(number)).await?;
        }
        let registry_answers = self.fleet.registry_answers();
        let ready_at = node.process.ready_at;
        self.fleet.put(number, node);
        self.fleet.is_linked(number, MENDED_WITHIN).await?;
        // Without the registry nobody can know of it: how long that takes is not the node's time.
        if registry_answers && self.fleet.registry_answers() {
            self.report.mended(fault.kind, ready_at.elapsed());
        }
        Ok(())
    }

    async fn stop_node(&self, fault: &Fault) -> Result<()> {
        let Some(number) = self.fleet.freeze(fault.victim)? else {
            return Ok(());
        };
        sleep(fault.lasts).await;
        self.fleet.thaw(number)?;
        let thawed = Instant::now();
        self.fleet.is_linked(number, MENDED_WITHIN).await?;
        self.report.mended(fault.kind, thawed.elapsed());
        Ok(())
    }

    async fn kill_registry(&self, fault: &Fault) -> Result<()> {
        let mut registry = self.fleet.take_registry()?;
        registry.process.kill().await?;
        sleep(fault.lasts).await;
        let registry = Registry::on(registry.address()).await?;
        self.registry_is_back(fault, registry).await
    }

    async fn stop_registry(&self, fault: &Fault) -> Result<()> {
        let registry = self.fleet.take_registry()?;
        registry.process.freeze()?;
        sleep(fault.lasts).await;
        registry.process.thaw()?;
        self.registry_is_back(fault, registry).await
    }

    /// A registry answers again: it must list all nodes that run.
    async fn registry_is_back(&self, fault: &Fault, registry: Registry) -> Result<()> {
        let back = Instant::now();
        let listed = self.fleet.is_listed(&registry, MENDED_WITHIN).await;
        self.fleet.put_registry(registry);
        listed?;
        self.report.mended(fault.kind, back.elapsed());
        Ok(())
    }

    /// A broker is killed and back with nothing, or stopped.
    async fn hurt_broker(&self, fault: &Fault) -> Result<()> {
        let broker = self.fleet.take_broker(fault.victim);
        let mut broker = broker.context("there is one")?;
        let kills = fault.kind == Kind::BrokerKill;
        match kills {
            true => broker.kill().await?,
            false => broker.pause().await?,
        }
        sleep(fault.lasts).await;
        match kills {
            true => broker.again().await?,
            false => broker.resume()?,
        }
        let back = Instant::now();
        self.fleet.put_broker(broker);
        self.fleet.all_linked(MENDED_WITHIN).await?;
        self.fleet.are_met();
        self.report.mended(fault.kind, back.elapsed());
        Ok(())
    }

    /// Somebody says very much at once, at a node that may end meanwhile.
    async fn burst(&self, fault: &Fault) -> Result<()> {
        let name = format!("burst{}", self.report.count(Kind::Burst));
        let Some(http) = self.fleet.endpoint(fault.victim) else {
            return Ok(());
        };
        // A node that has just ended lets nobody in, and one that ends answers nothing more.
        if let Ok(client) = self.recorder.client_at(&http, &name).await {
            let begun = Instant::now();
            if send_at_once(&client, self.room, BURST, BURST_BYTES)
                .await
                .is_ok()
            {
                self.report.mended(Kind::Burst, begun.elapsed());
            }
        }
        Ok(())
    }

    /// Somebody reads nothing for a while, at a node that may end meanwhile.
    async fn slow_client(&self, fault: &Fault) -> Result<()> {
        let Some(http) = self.fleet.endpoint(fault.victim) else {
            return Ok(());
        };
        if let Ok(client) = Client::hello_at(&http, "slow").await {
            client.start("join", json!({ "room": self.room }));
            client.freeze();
            sleep(fault.lasts).await;
        }
        Ok(())
    }
}
