/** The address of a room or of a message, as the part behind the `#`: `room` or `room/id`. Pure. */
import { cleanRoom, parseId } from './wire.js';

/**
 * @param {string} hash    with or without its `#`
 * @param {string} search  the query, in which `room=` may name a room
 * @returns {{room: string | null, id: string | null}}
 */
export function readAddress(hash, search) {
  try {
    // No room's name and no id has a slash in it.
    const [name, id = ''] = hash.replace(/^#/, '').split('/').map(decodeURIComponent);
    const room = cleanRoom(name) ?? cleanRoom(new URLSearchParams(search).get('room') ?? '');
    return { room, id: room !== null && parseId(id) ? id : null };
  } catch {
    return { room: null, id: null }; // A lone % in the hash.
  }
}

/**
 * @param {string} room
 * @param {string} [id]  of a message in it
 * @returns {string} with its `#`
 */
export function writeAddress(room, id = '') {
  return `#${encodeURIComponent(room)}${id === '' ? '' : `/${encodeURIComponent(id)}`}`;
}
