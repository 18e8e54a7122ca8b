//! Leaves of a file, read without SQLite: what is left of a file whose header, tables or inner pages
//! are gone. <https://www.sqlite.org/fileformat2.html>
//!
//! Each page that is a leaf is taken for what it says it is. That is often wrong, and does no harm:
//! a row counts only if its checksum is right.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use rusqlite::types::ValueRef;

use super::row::{self, Kept};
use super::schema::{Log, PAGE_BYTES};
use super::{check, time::Stopwatch};
use crate::model::entry::EntryJson;
use crate::model::names::{Origin, RoomName};

/// A leaf of a table: rows with numbers. Entries are there.
const TABLE_LEAF: u8 = 0x0D;
/// A leaf of an index, or of a table without numbers of rows. Logs are there.
const INDEX_LEAF: u8 = 0x0A;
/// Longest row that is read; the longest that is written is some kilobytes.
const ROW_BYTES_MAX: usize = 1 << 20;
/// Header of the first page.
const FILE_HEADER_BYTES: usize = 100;
/// How often it is said how far it is.
const TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

/// What is found in a page.
pub(super) enum Found {
    /// An entry.
    Entry(Kept),
    /// What was kept of an origin.
    Log(Origin, Log),
}

/// Reads all pages of a file, skipping what does not read, and gives out what is found, until
/// `take` has enough.
pub(super) fn scan(path: &Path, mut take: impl FnMut(Found) -> bool) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let pages = file.metadata()?.len() / PAGE_BYTES as u64;
    let mut told = Stopwatch::start();
    for number in 0..pages {
        if told.elapsed() > TOLD_EVERY {
            told = Stopwatch::start();
            tracing::info!(
                count = number,
                all = pages,
                "looking through pages of a damaged file"
            );
        }
        let Some(page) = page(&mut file, number) else {
            continue;
        };
        let header = if number == 0 { FILE_HEADER_BYTES } else { 0 };
        for cell in cells(&page, header) {
            if let Some(found) = cell.row(&mut file).and_then(|row| found(&row))
                && !take(found)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Pages are counted from 0 here.
fn page(file: &mut File, number: u64) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE_BYTES];
    file.seek(SeekFrom::Start(number * PAGE_BYTES as u64))
        .ok()?;
    file.read_exact(&mut page).ok()?;
    Some(page)
}

/// A cell of a leaf: the beginning of a row, and where the rest is.
struct Cell<'a> {
    /// The row's number, in tables that have them.
    id: Option<i64>,
    length: usize,
    local: &'a [u8],
    overflow: u32,
}

/// A whole row.
struct Row {
    id: Option<i64>,
    bytes: Vec<u8>,
}

fn cells(page: &[u8], header: usize) -> Vec<Cell<'_>> {
    let kind = page[header];
    if kind != TABLE_LEAF && kind != INDEX_LEAF {
        return Vec::new();
    }
    let number = |at: usize| {
        let bytes = page.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)))
    };
    let count = number(header + 3).unwrap_or(0);
    let starts = (0..count).map_while(|index| number(header + 8 + 2 * index));
    starts
        .filter_map(|start| cell(page.get(start..)?, kind == TABLE_LEAF))
        .collect()
}

fn cell(bytes: &[u8], is_table: bool) -> Option<Cell<'_>> {
    let (length, mut rest) = varint(bytes)?;
    let length = usize::try_from(length)
        .ok()
        .filter(|n| *n <= ROW_BYTES_MAX)?;
    let mut id = None;
    if is_table {
        let (number, after) = varint(rest)?;
        (id, rest) = (Some(number.cast_signed()), after);
    }
    // How much of a row is in the page itself, as the format has it.
    let most = if is_table {
        PAGE_BYTES - 35
    } else {
        (PAGE_BYTES - 12) * 64 / 255 - 23
    };
    let least = (PAGE_BYTES - 12) * 32 / 255 - 23;
    let here = if length <= most {
        length
    } else {
        let here = least + (length - least) % (PAGE_BYTES - 4);
        if here <= most { here } else { least }
    };
    let local = rest.get(..here)?;
    let overflow = if here < length {
        u32::from_be_bytes(rest.get(here..here + 4)?.try_into().ok()?)
    } else {
        0
    };
    Some(Cell {
        id,
        length,
        local,
        overflow,
    })
}

impl Cell<'_> {
    /// Follows the pages that hold the rest.
    fn row(&self, file: &mut File) -> Option<Row> {
        let mut bytes = self.local.to_vec();
        let mut next = self.overflow;
        while bytes.len() < self.length {
            // Pages are counted from 1 in the file; 0 is none.
            let page = page(file, u64::from(next).checked_sub(1)?)?;
            let (number, rest) = page.split_first_chunk::<4>()?;
            next = u32::from_be_bytes(*number);
            let missing = self.length - bytes.len();
            bytes.extend_from_slice(&rest[..missing.min(rest.len())]);
        }
        Some(Row { id: self.id, bytes })
    }
}

/// A number of 1 to 9 bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some((number << 8 | u64::from(*byte), &bytes[9..]));
        }
        number = number << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

/// The columns of a row; `None` if there are not exactly so many.
fn columns<const N: usize>(bytes: &[u8]) -> Option<[ValueRef<'_>; N]> {
    let (header, _) = varint(bytes)?;
    let header = usize::try_from(header).ok()?;
    let mut types = bytes.get(..header)?;
    (_, types) = varint(types)?;
    let mut body = bytes.get(header..)?;
    let mut values = [ValueRef::Null; N];
    for value in &mut values {
        let kind;
        (kind, types) = varint(types)?;
        (*value, body) = column(kind, body)?;
    }
    types.is_empty().then_some(values)
}

/// A value of this type, and what follows it.
fn column(kind: u64, body: &[u8]) -> Option<(ValueRef<'_>, &[u8])> {
    let length = match kind {
        0 | 8 | 9 => 0,
        1..=4 => usize::try_from(kind).ok()?,
        5 => 6,
        6 => 8,
        12.. => usize::try_from((kind - 12) / 2).ok()?,
        _ => return None,
    };
    let (bytes, rest) = body.split_at_checked(length)?;
    let value = match kind {
        0 => ValueRef::Null,
        8 => ValueRef::Integer(0),
        9 => ValueRef::Integer(1),
        1..=6 => ValueRef::Integer(integer(bytes)),
        _ if kind.is_multiple_of(2) => ValueRef::Blob(bytes),
        _ => ValueRef::Text(bytes),
    };
    Some((value, rest))
}

/// Big-endian, with a sign.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let sign = if negative { -1 } else { 0 };
    let shift = |number: i64, byte: &u8| (number << 8) | i64::from(*byte);
    bytes.iter().fold(sign, shift)
}

fn found(row: &Row) -> Option<Found> {
    match row.id {
        Some(id) => {
            let [_, origin, seq, ts, _, mid, shown, json, sum] = columns::<9>(&row.bytes)?;
            let ValueRef::Blob(bytes) = json else {
                return None;
            };
            // The table of rooms may be lost; the entry itself says where it was said.
            let room = room_of(bytes)?;
            let id = ValueRef::Integer(id);
            let values = [id, origin, seq, ts, mid, shown, json, sum];
            row::entry(values, &room).map(Found::Entry)
        }
        None => {
            let (origin, log) = check::log(columns::<5>(&row.bytes)?)?;
            Some(Found::Log(origin, log))
        }
    }
}

/// The room that the JSON of an entry names.
pub(super) fn room_of(json: &[u8]) -> Option<RoomName> {
    let json: EntryJson<'_> = serde_json::from_slice(json).ok()?;
    RoomName::of_peer(json.room).ok()
}
