//! What was said and is not taken by everybody yet, kept once, however many still have to read it.
//!
//! A turn's batch of a room becomes a chunk here when some socket did not take all of it. A client
//! that is behind holds where it is: a run of chunks, from the one that it is in to the last of its
//! room. A chunk goes when the last of its readers has passed it.
//!
//! ```text
//!   room's chunks   [ 7 ]─▶[ 8 ]─▶[ 9 ]─▶[ 10 ]
//!   client a               └ 8, byte 120 … 10
//!   client b                              └ 10, byte 0
//! ```

use slab::Slab;

/// Bytes that all clients together may be behind, of what was said to rooms: beyond, those furthest
/// behind are closed as slow, until three quarters are left.
pub(crate) const SPOOL_BYTES_MAX: usize = 32 << 20;
/// What a chunk takes beside its bytes, about.
const CHUNK_BYTES: usize = 128;

/// A chunk; never the same again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkId {
    key: usize,
    /// Increases from chunk to chunk: what is older has the smaller one.
    pub(super) serial: u64,
}

/// One turn's batch of a room.
#[derive(Debug)]
struct Chunk {
    serial: u64,
    /// Whole frames. Empty until the turn is over; `len` tells how many bytes will be here.
    bytes: Vec<u8>,
    len: usize,
    messages: u32,
    readers: u32,
    /// The chunk of the same room and style that came after it.
    next: Option<ChunkId>,
}

/// All chunks.
#[derive(Debug, Default)]
pub(super) struct Spool {
    chunks: Slab<Chunk>,
    serial: u64,
    bytes: usize,
}

impl Spool {
    /// Makes a chunk for so many bytes, behind `before`. They are brought by [`Spool::fill`] when the
    /// turn is over.
    pub(super) fn add(&mut self, len: usize, messages: u32, before: Option<ChunkId>) -> ChunkId {
        self.serial += 1;
        let serial = self.serial;
        let key = self.chunks.insert(Chunk {
            serial,
            bytes: Vec::new(),
            len,
            messages,
            readers: 0,
            next: None,
        });
        let id = ChunkId { key, serial };
        if let Some(before) = before.and_then(|before| self.get_mut(before)) {
            before.next = Some(id);
        }
        self.bytes += len + CHUNK_BYTES;
        id
    }

    /// Brings a chunk's bytes; gives them back if nobody has to read them any more.
    pub(super) fn fill(&mut self, id: ChunkId, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Some(chunk) = self.get_mut(id) else {
            return Some(bytes);
        };
        debug_assert_eq!(bytes.len(), chunk.len, "as many as were announced");
        bytes.shrink_to_fit();
        chunk.bytes = bytes;
        None
    }

    fn get(&self, id: ChunkId) -> Option<&Chunk> {
        self.chunks
            .get(id.key)
            .filter(|chunk| chunk.serial == id.serial)
    }

    fn get_mut(&mut self, id: ChunkId) -> Option<&mut Chunk> {
        self.chunks
            .get_mut(id.key)
            .filter(|chunk| chunk.serial == id.serial)
    }

    /// One more has to read this.
    pub(super) fn hold(&mut self, id: ChunkId) {
        if let Some(chunk) = self.get_mut(id) {
            chunk.readers += 1;
        }
    }

    /// One less has to.
    pub(super) fn release(&mut self, id: ChunkId) {
        let Some(chunk) = self.get_mut(id) else {
            return;
        };
        chunk.readers -= 1;
        if chunk.readers == 0 {
            let chunk = self.chunks.remove(id.key);
            self.bytes -= chunk.len + CHUNK_BYTES;
        }
    }

    /// The bytes of a chunk.
    pub(super) fn bytes(&self, id: ChunkId) -> &[u8] {
        self.get(id).map_or(&[], |chunk| &chunk.bytes)
    }

    /// How many bytes a chunk has, also before they are here.
    pub(super) fn len(&self, id: ChunkId) -> usize {
        self.get(id).map_or(0, |chunk| chunk.len)
    }

    /// How many messages are in a chunk.
    pub(super) fn messages(&self, id: ChunkId) -> u32 {
        self.get(id).map_or(0, |chunk| chunk.messages)
    }

    /// The chunk of the same room after this one.
    pub(super) fn next(&self, id: ChunkId) -> Option<ChunkId> {
        self.get(id)?.next
    }

    /// How many bytes are kept, what keeps them included.
    pub(super) fn size(&self) -> usize {
        self.bytes
    }

    /// Whether more is kept than may be.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > SPOOL_BYTES_MAX
    }

    /// Whether there is room again.
    pub(super) fn has_room(&self) -> bool {
        self.bytes <= SPOOL_BYTES_MAX / 4 * 3
    }
}
