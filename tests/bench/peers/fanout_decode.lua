-- nginx's Lua fan-out as people write it: decode the call, capture all at once, decode every
-- answer, encode the whole.
local cjson = require "cjson"

ngx.req.read_body()
local document = cjson.decode(ngx.req.get_body_data())
local methods = { GET = ngx.HTTP_GET, POST = ngx.HTTP_POST, PUT = ngx.HTTP_PUT,
                  DELETE = ngx.HTTP_DELETE, PATCH = ngx.HTTP_PATCH }

local calls = {}
for i, part in ipairs(document.requests) do
    local headers = part.headers or {}
    calls[i] = { "/rest/" .. part.url, {
        method = methods[part.method or "GET"],
        body = part.data,
        -- A capture inherits the outer headers and takes none of its own: these go as variables.
        vars = { own_part = headers["X-Part"] or "", own_module = headers["X-Module"] or "",
                 own_language = headers["Accept-Language"] or "" },
    } }
end

local results = {}
for i, answer in ipairs({ ngx.location.capture_multi(calls) }) do
    results[i] = { contents = cjson.decode(answer.body), headers = answer.header,
                   status = answer.status, status_text = "OK" }
end
ngx.print(cjson.encode(results))
