-- What an HTTP-pipelining batch plugin does: the call is checked against its form, every part
-- becomes a request to nginx's own port, all are sent over one connection without waiting, the
-- answers are read in turn as any HTTP client reads them, and the whole is encoded.
local cjson = require "cjson"

local METHODS = { GET = true, POST = true, PUT = true, DELETE = true, PATCH = true, HEAD = true,
                  OPTIONS = true }

local function refuse(message)
    ngx.status = 400
    ngx.print(cjson.encode({ error_msg = message }))
    return ngx.exit(400)
end

local function is_table(value) return value == nil or type(value) == "table" end

local function check(document)
    if type(document) ~= "table" or type(document.pipeline) ~= "table" or #document.pipeline == 0 then
        return "expected a pipeline"
    end
    for i, part in ipairs(document.pipeline) do
        if type(part.path) ~= "string" or part.path == "" then return i .. ": expected a path" end
        if part.method == nil then part.method = "GET" end
        if not METHODS[part.method] then return i .. ": expected a method" end
        if not is_table(part.headers) then return i .. ": expected headers" end
        if not is_table(part.query) then return i .. ": expected a query" end
    end
end

-- Own fields over the outer ones, names in lower case.
local function merge(document, outer)
    for _, part in ipairs(document.pipeline) do
        local headers = {}
        for name, value in pairs(part.headers or {}) do headers[name:lower()] = value end
        for name, value in pairs(outer) do
            if not headers[name] and name:sub(1, 8) ~= "content-" then headers[name] = value end
        end
        if part.body then
            headers["content-type"] = headers["content-type"] or "application/json"
            headers["content-length"] = #part.body
        end
        headers["connection"] = nil
        part.headers = headers
    end
end

local function write(socket, part)
    local pieces, n = { part.method, " ", part.path, " HTTP/1.1\r\n" }, 4
    for name, value in pairs(part.headers) do
        local values = type(value) == "table" and value or { value }
        for _, one in ipairs(values) do
            pieces[n + 1], pieces[n + 2], pieces[n + 3], pieces[n + 4] = name, ": ", one, "\r\n"
            n = n + 4
        end
    end
    pieces[n + 1] = "\r\n"
    assert(socket:send(pieces))
    if part.body then assert(socket:send(part.body)) end
end

-- Names in any case find their field; a field that comes twice becomes a list.
local function fields()
    local canonical = {}
    return setmetatable({}, {
        __index = function(self, name) return rawget(self, canonical[name:lower()] or "") end,
        __newindex = function(self, name, value)
            local lower = name:lower()
            canonical[lower] = canonical[lower] or name
            rawset(self, canonical[lower], value)
        end,
    })
end

local function read_head(socket)
    local line = assert(socket:receive("*l"))
    local status, reason = line:sub(10, 12), line:sub(14)
    local headers = fields()
    while true do
        line = assert(socket:receive("*l"))
        local match = ngx.re.match(line, "([^:\\s]+):\\s*(.*)", "jo")
        if not match then break end
        local name, value = match[1], match[2]
        local before = headers[name]
        if type(before) == "table" then
            before[#before + 1] = value
        else
            headers[name] = before and { before, value } or value
        end
    end
    return tonumber(status), reason, headers
end

local CHUNK = 65536

local function reader(socket, headers)
    if (headers["Transfer-Encoding"] or ""):lower() ~= "chunked" then
        return coroutine.wrap(function()
            local left = tonumber(headers["Content-Length"]) or 0
            while left > 0 do
                local data = assert(socket:receive(math.min(left, CHUNK)))
                left = left - #data
                coroutine.yield(data)
            end
        end)
    end
    return coroutine.wrap(function()
        while true do
            local size = tonumber(assert(socket:receive("*l")):match("^%x+"), 16)
            if size > 0 then coroutine.yield(assert(socket:receive(size))) end
            assert(socket:receive(2))
            if size == 0 then return end
        end
    end)
end

local function read(socket)
    local status, reason, headers = read_head(socket)
    local pieces = {}
    for data in reader(socket, headers) do pieces[#pieces + 1] = data end
    return { status = status, reason = reason, headers = headers, body = table.concat(pieces) }
end

ngx.req.read_body()
local document = cjson.decode(ngx.req.get_body_data())
local mistake = check(document)
if mistake then return refuse(mistake) end

local socket = ngx.socket.tcp()
socket:settimeout(30000)
assert(socket:connect("127.0.0.1", tonumber(ngx.var.server_port)))
merge(document, ngx.req.get_headers(0))
for _, part in ipairs(document.pipeline) do write(socket, part) end

local results = {}
for i = 1, #document.pipeline do results[i] = read(socket) end
socket:setkeepalive(60000, 64)
ngx.print(cjson.encode(results))
