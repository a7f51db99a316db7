-- The same with the answers' bodies joined as they came: nothing checks that they are JSON.
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
        vars = { own_part = headers["X-Part"] or "", own_module = headers["X-Module"] or "",
                 own_language = headers["Accept-Language"] or "" },
    } }
end

local pieces, n = { "[" }, 1
for i, answer in ipairs({ ngx.location.capture_multi(calls) }) do
    pieces[n + 1] = (i > 1 and ',{"contents":' or '{"contents":')
    pieces[n + 2] = answer.body
    pieces[n + 3] = ',"headers":' .. cjson.encode(answer.header) .. ',"status":' .. answer.status
        .. ',"status_text":"OK"}'
    n = n + 3
end
pieces[n + 1] = "]"
ngx.print(pieces)
