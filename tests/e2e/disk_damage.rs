//! The file of history is damaged while its node is stopped. The damage is seen or does not matter;
//! it is never shown, never spreads, and what it took comes back from the peers.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::tempdir;

use crate::harness::disks::{FILE, member, names_in, number, pour, reborn, written};
use crate::harness::pump::filled;
use crate::harness::{
    Client, Duration, Instant, Node, Outcome, PATIENCE, Registry, check::history, eventually,
    linked, long, same, say, secs,
};

/// Within this time a node whose file was set aside has all from its peers again.
const REBUILT: Duration = secs(15);
/// How many single bits are flipped, one at each start; as many as a busy machine can in 25 s, but
/// this many at the least.
const FLIPS: usize = 20;
const FLIPS_MIN: usize = 8;
/// What the name of a file that was set aside begins with.
const ASIDE: &str = "history.damaged-";

/// A peer whose history nothing may change, and a node whose file is damaged.
struct Pair {
    peer: Node,
    victim: Node,
    data: std::path::PathBuf,
    tea: Vec<String>,
    _registry: Registry,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// 1000 messages from both, in two rooms, on both disks.
    async fn start() -> anyhow::Result<Self> {
        let (registry, folder) = (Registry::start().await?, tempdir()?);
        let data = folder.path().join("victim");
        let peer = member(&registry, Some(&folder.path().join("peer")), &[]).await?;
        let victim = member(&registry, Some(&data), &[]).await?;
        linked(&[&peer, &victim], PATIENCE).await?;
        for (node, name) in [(&peer, "ada"), (&victim, "bob")] {
            let client = Client::hello(node, name).await?;
            let texts = |count| (0..count).map(move |nth| filled(&format!("{name} {nth}"), 300));
            pour(&client, "tea", texts(400)).await?;
            pour(&client, "milk", texts(100)).await?;
        }
        let tea = same(&[&peer, &victim], "tea", PATIENCE).await?;
        ensure!(tea.len() == 800, "{} messages", tea.len());
        for node in [&peer, &victim] {
            written(node).await?;
        }
        Ok(Self {
            peer,
            victim,
            data,
            tea,
            _registry: registry,
            _folder: folder,
        })
    }

    /// Stops the victim, damages a file of its folder, starts it, and checks all that must hold.
    /// Whether the file was set aside.
    async fn round(
        &mut self,
        what: &str,
        kill: bool,
        damage: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<bool> {
        if kill {
            self.victim.process.kill().await?;
        } else {
            self.victim.process.stop(secs(10)).await?;
        }
        let done = damage(&self.data)?;
        let begun = Instant::now();
        reborn(&mut self.victim)
            .await
            .with_context(|| format!("{what} ({done}) keeps it from starting"))?;
        let log = self.victim.process.log_text();
        let aside: Vec<_> = names_in(&self.data)?
            .into_iter()
            .filter(|name| name.starts_with(ASIDE))
            .collect();
        let named = log.contains(ASIDE) || log.contains(FILE);
        ensure!(
            aside.is_empty() || named,
            "{what} ({done}): {aside:?} set aside and not named in the log:\n{log}"
        );
        ensure!(!log.contains("panicked"), "{what} ({done}):\n{log}");
        let both = [&self.peer, &self.victim];
        let tea = same(&both, "tea", REBUILT)
            .await
            .with_context(|| format!("{what} ({done}), aside {aside:?}"))?;
        let took = begun.elapsed();
        ensure!(tea == self.tea, "{what} ({done}) has spread");
        same(&both, "milk", REBUILT).await?;
        // What the peer has told is found when it is written.
        written(&self.victim).await?;
        for word in ["ada+7", "bob+90"] {
            self.finds_the_same(word)
                .await
                .with_context(|| format!("{what} ({done})"))?;
        }
        let repaired = number(&self.victim, "repaired_total").await?;
        say!(
            "{what} ({done}): set aside {aside:?}, {repaired} entries from the peer, equal after \
             {took:?}"
        );
        for name in &aside {
            remove(&self.data.join(name))?;
        }
        Ok(!aside.is_empty())
    }
}

impl Pair {
    /// Search shows nothing of the damage either. It may be slow while the index is made anew.
    async fn finds_the_same(&self, word: &str) -> anyhow::Result<()> {
        let path = format!("/api/rooms/tea/search?q={word}");
        let due = self.peer.get_json(&path).await?;
        let found = eventually(PATIENCE, "the search is answered", async || {
            self.victim.get_json(&path).await
        });
        let found = found.await?;
        ensure!(found == due, "search finds {found}, not {due}");
        Ok(())
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Flips one bit somewhere in a file of the folder.
fn flip(file: &Path, rng: &mut StdRng) -> anyhow::Result<String> {
    let mut open = OpenOptions::new().read(true).write(true).open(file)?;
    let length = open.metadata()?.len();
    ensure!(length > 0, "{} is empty", file.display());
    let (place, bit) = (rng.random_range(0..length), rng.random_range(0..8));
    let mut byte = [0];
    open.seek(SeekFrom::Start(place))?;
    open.read_exact(&mut byte)?;
    open.seek(SeekFrom::Start(place))?;
    open.write_all(&[byte[0] ^ (1 << bit)])?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("bit {bit} of byte {place} of {length} of {name}"))
}

/// Goal: one flipped bit anywhere in the file is seen or does not matter: each message that
/// the node shows is the byte-equal one of its peer, and it has all of them again.
/// Method: stop the node, flip one random bit, start it, over and over, from a seed. Every third
/// time it is killed, and the bit is in what is written ahead, if that is there.
#[tokio::test]
async fn a_flipped_bit_is_never_shown_and_never_spreads() -> Outcome {
    let seed = rand::random();
    say!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pair = Pair::start().await?;
    let (flips, least) = if long() {
        (5 * FLIPS, 5 * FLIPS)
    } else {
        (FLIPS, FLIPS_MIN)
    };
    let begun = Instant::now();
    let (mut rounds, mut aside) = (0, 0);
    while rounds < flips && (rounds < least || begun.elapsed() < secs(25)) {
        let kill = rounds % 3 == 2;
        rounds += 1;
        let seen = pair
            .round("one bit", kill, |data| {
                let ahead = data.join(format!("{FILE}-wal"));
                let full = ahead.metadata().is_ok_and(|data| data.len() > 0);
                let file = if kill && full { ahead } else { data.join(FILE) };
                flip(&file, &mut rng)
            })
            .await?;
        aside += usize::from(seen);
    }
    say!("{aside} of {rounds} files were set aside");
    Ok(())
}

/// Goal: a file that is cut short, garbage, or empty is named in the log, set aside, and all
/// comes back from the peers, also what only this node's earlier starts had said. Without peers the
/// node starts too, and says what it lacks.
/// Method: each of these on a stopped node.
#[tokio::test]
async fn a_ruined_file_is_set_aside_and_rebuilt_from_the_peers() -> Outcome {
    let mut pair = Pair::start().await?;
    let length = |data: &Path| -> anyhow::Result<u64> { Ok(data.join(FILE).metadata()?.len()) };
    let cut = |data: &Path, share: u64| -> anyhow::Result<String> {
        let left = length(data)? * share / 100;
        OpenOptions::new()
            .write(true)
            .open(data.join(FILE))?
            .set_len(left)?;
        Ok(format!("{left} bytes are left"))
    };
    let with = |data: &Path, bytes: Vec<u8>| -> anyhow::Result<String> {
        fs::write(data.join(FILE), &bytes)?;
        Ok(format!("{} bytes", bytes.len()))
    };
    let must = pair.round("cut short", false, |data| cut(data, 60)).await?;
    assert!(must, "a file that is cut short is damaged");
    let must = pair
        .round("cut to a stump", false, |data| cut(data, 1))
        .await?;
    assert!(must, "a stump is damaged");
    let garbage = |data: &Path| {
        let bytes = (0..100_000).map(|_| rand::random()).collect();
        with(data, bytes)
    };
    assert!(pair.round("garbage", false, garbage).await?);
    let other = |data: &Path| with(data, b"this is a letter to my aunt\n".repeat(500));
    assert!(pair.round("another file", false, other).await?);
    // Nothing in it is nothing damaged: all is fetched.
    pair.round("empty", false, |data| with(data, Vec::new()))
        .await?;
    pair.round("gone", true, |data| {
        for name in names_in(data)? {
            remove(&data.join(name))?;
        }
        Ok("all files".to_owned())
    })
    .await?;
    // Without peers.
    pair.peer.process.kill().await?;
    // Not killed: what is written ahead would be saved from the file's ruin.
    pair.victim.process.stop(secs(10)).await?;
    garbage(&pair.data)?;
    reborn(&mut pair.victim).await?;
    assert_eq!(history(&pair.victim, "tea").await?, Vec::<String>::new());
    let ada = Client::hello(&pair.victim, "ada").await?;
    ada.send("tea", "a new beginning").await?;
    let log = pair.victim.process.log_text();
    assert!(log.contains(ASIDE), "{log}");
    // The peer has all, and the node gets it back with what it has said meanwhile.
    reborn(&mut pair.peer).await?;
    let tea = same(&[&pair.peer, &pair.victim], "tea", REBUILT).await?;
    assert_eq!(tea[..pair.tea.len()], pair.tea);
    assert_eq!(tea.len(), pair.tea.len() + 1);
    Ok(())
}
