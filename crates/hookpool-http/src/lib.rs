//! The HTTP edge: requests in, server-sent events out.
