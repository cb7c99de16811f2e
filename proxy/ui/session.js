// The key of this tab: kept in its session storage, sent as a bearer, in no address and in no cookie.

const NAME = "sidegate.key";

/** Return the key, `null` when nobody is signed in. */
export const key = () => sessionStorage.getItem(NAME);

/** Keep a key until the tab is closed. */
export const keep = (value) => sessionStorage.setItem(NAME, value);

/** Forget the key. */
export const forget = () => sessionStorage.removeItem(NAME);
