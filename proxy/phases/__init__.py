"""The phases of a request, one module each; `proxy.pipeline` puts them in order and joins the packages for them."""
