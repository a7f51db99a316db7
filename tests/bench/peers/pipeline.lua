-- What an HTTP-pipelining batch plugin does: every part becomes a request to nginx's own port, all
-- written at once over one connection, answered one after another, each proxied to the backend.
local cjson = require "cjson"

ngx.req.read_body()
local document = cjson.decode(ngx.req.get_body_data())

local inherited = {}
for name, value in pairs(ngx.req.get_headers(0)) do
    if name ~= "host" and name ~= "content-length" and name ~= "content-type"
        and name ~= "connection" then
        inherited[name] = value
    end
end

local function head(part)
    local headers = {}
    for name, value in pairs(inherited) do headers[name] = value end
    for name, value in pairs(part.headers or {}) do headers[name] = value end
    local lines = { (part.method or "GET") .. " " .. part.path .. " HTTP/1.1", "Host: 127.0.0.1" }
    for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
    if part.body then
        lines[#lines + 1] = "Content-Type: application/json"
        lines[#lines + 1] = "Content-Length: " .. #part.body
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (part.body or "")
end

local function answer(socket)
    local line = assert(socket:receive("*l"))
    local status, reason = line:match("^HTTP/%d%.%d (%d+) ?(.*)$")
    local headers = {}
    while true do
        line = assert(socket:receive("*l"))
        if line == "" then break end
        local name, value = line:match("^([^:]+):%s*(.*)$")
        headers[name] = value
    end
    local body
    if headers["Transfer-Encoding"] == "chunked" then
        local chunks = {}
        repeat
            local size = tonumber(assert(socket:receive("*l")):match("^%x+"), 16)
            if size > 0 then chunks[#chunks + 1] = assert(socket:receive(size)) end
            socket:receive(2)
        until size == 0
        body = table.concat(chunks)
    else
        body = assert(socket:receive(tonumber(headers["Content-Length"])))
    end
    return { status = tonumber(status), reason = reason, headers = headers, body = body }
end

local requests = {}
for i, part in ipairs(document.pipeline) do requests[i] = head(part) end

local socket = ngx.socket.tcp()
socket:settimeout(30000)
assert(socket:connect("127.0.0.1", tonumber(ngx.var.server_port)))
assert(socket:send(requests))
local results = {}
for i = 1, #requests do results[i] = answer(socket) end
socket:setkeepalive(60000, 64)
ngx.print(cjson.encode(results))
